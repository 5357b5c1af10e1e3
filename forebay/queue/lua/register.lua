-- Names carry the version, so two releases can share a server during an upgrade. What ends or
-- moves accepted work is allowed at full memory; enqueue is not: that refusal is the point.

local function register(name, callback, flags)
  redis.register_function({
    function_name = 'forebay_' .. VERSION .. '_' .. name,
    callback = callback,
    flags = flags,
  })
end

register('enqueue', enqueue, {})
register('describe', describe, { 'no-writes' })
register('workers', workers, { 'no-writes' })
register('cancel', cancel, { 'allow-oom' })
register('depth', depth, { 'allow-oom' })
register('claim', claim, { 'allow-oom' })
register('heartbeat', heartbeat, { 'allow-oom' })
register('finish', finish, { 'allow-oom' })
register('release', release, { 'allow-oom' })
register('redeliver', redeliver, { 'allow-oom' })
register('reap', reap, { 'allow-oom' })
register('append', append, { 'allow-oom' })
