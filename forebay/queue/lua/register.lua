-- Names carry the version, so two releases can share a server during an upgrade. What ends or
-- moves accepted work is allowed at full memory; enqueue is not: that refusal is the point.

-- The counters are written also where a function fails half-way: they tell what was done.
local function with_context(f, reads)
  return function(keys, args)
    local q = open(keys, args)
    local fine, reply = pcall(f, q, args)
    if not reads then
      flush(q)
    end
    if not fine then
      error(reply, 0)
    end
    return reply
  end
end

local function register(name, f, flags)
  redis.register_function({
    function_name = 'forebay_' .. VERSION .. '_' .. name,
    callback = with_context(f, flags[1] == 'no-writes'),
    flags = flags,
  })
end

register('enqueue', enqueue, {})
register('admitted', admitted, { 'no-writes' })
register('replay', replay, { 'no-writes' })
register('describe', describe, { 'no-writes' })
register('glance', glance, { 'no-writes' })
register('workers', workers, { 'allow-oom' }) -- it notes that the clock has gone back
register('cancel', cancel, { 'allow-oom' })
register('depth', depth, { 'allow-oom' })
register('claim', claim, { 'allow-oom' })
register('heartbeat', heartbeat, { 'allow-oom' })
register('finish', finish, { 'allow-oom' })
register('release', release, { 'allow-oom' })
register('redeliver', redeliver, { 'allow-oom' })
register('reap', reap, { 'allow-oom' })
register('hold', hold, {})
register('unneeded', unneeded, { 'no-writes' })
register('put_blob', put_blob, {})
register('append', append, { 'allow-oom' })
register('list', list, { 'no-writes' })
register('tenants', tenants, { 'no-writes' })
register('retry', retry, { 'allow-oom' })
register('drop', drop, { 'allow-oom' })
register('drain', drain, { 'allow-oom' })
register('hooks_claim', hooks_claim, { 'allow-oom' })
register('hooks_settle', hooks_settle, { 'allow-oom' })
register('batch_open', batch_open, {})
register('batch_lease', batch_lease, { 'allow-oom' })
register('batch_write', batch_write, { 'allow-oom' })
register('batch_cancel', batch_cancel, { 'allow-oom' })
register('throttle', throttle, { 'allow-oom' })
register('key_write', key_write, {})
register('key_pepper', key_pepper, { 'allow-oom' })
register('key_clear', key_clear, { 'allow-oom' })
register('key_rotate', key_rotate, { 'allow-oom' })
register('key_revoke', key_revoke, { 'allow-oom' })
register('alert_lead', alert_lead, { 'allow-oom' })
register('alert_keep', alert_keep, { 'allow-oom' })
register('measure_put', measure_put, { 'allow-oom' })
register('measure_all', measure_all, { 'no-writes' })
