-- Batches: records of long jobs that some API process has in hand, one at a time.
-- A live batch stands in the index with the time from which anyone may take it: its creation, or
-- the end of its holder's lease.

local function batch_open(q, args)
  local id, tenant, most, ttl_ms = args[ARGS + 1], args[ARGS + 2], number(args[ARGS + 3]), args[ARGS + 4]
  local hash = key(q, 'batch', id)
  if redis.call('EXISTS', hash) == 1 then
    return 1
  end
  local live = key(q, 'batch_live')
  if redis.call('ZCARD', live) >= most then
    return 0
  end
  redis.call('HSET', hash, 'tenant', tenant, unpack(args, ARGS + 5))
  redis.call('ZADD', live, q.now, id)
  local index = key(q, 'batches', tenant)
  redis.call('ZADD', index, q.us, id)
  redis.call('PEXPIRE', index, ttl_ms)
  return 1
end

-- The one that has waited longest and is in nobody's hands. Asked again by the same owner before
-- it has written anything, it gives another one; the first comes back when its lease runs out.
local function batch_lease(q, args)
  local owner, lease_ms = args[ARGS + 1], number(args[ARGS + 2])
  local live = key(q, 'batch_live')
  while true do
    local id = redis.call('ZRANGEBYSCORE', live, '-inf', q.now, 'LIMIT', 0, 1)[1]
    if not id then
      return ''
    end
    local hash = key(q, 'batch', id)
    if redis.call('EXISTS', hash) == 1 then
      redis.call('HSET', hash, 'owner', owner)
      redis.call('ZADD', live, q.now + lease_ms, id)
      return id
    end
    redis.call('ZREM', live, id)
  end
end

-- Write fields as the holder. lease_ms above 0 renews the lease; 0 gives the batch back; with
-- ttl_ms above 0 it has ended. Returns -1 when another holds it, else 1 when its end is asked for.
local function batch_write(q, args)
  local id, owner = args[ARGS + 1], args[ARGS + 2]
  local lease_ms, ttl_ms = number(args[ARGS + 3]), number(args[ARGS + 4])
  local hash, live = key(q, 'batch', id), key(q, 'batch_live')
  if redis.call('HGET', hash, 'owner') ~= owner then
    return -1
  end
  if args[ARGS + 5] then
    redis.call('HSET', hash, unpack(args, ARGS + 5))
  end
  if ttl_ms > 0 then
    redis.call('ZREM', live, id)
    redis.call('PEXPIRE', hash, ttl_ms)
  else
    redis.call('ZADD', live, 'XX', q.now + lease_ms, id)
  end
  return redis.call('HEXISTS', hash, 'cancelling_at')
end

-- Returns 1 when the batch is ending by this wish, now or from before; 0 when it has ended, or is
-- unknown.
local function batch_cancel(q, args)
  local id, at = args[ARGS + 1], args[ARGS + 2]
  if not redis.call('ZSCORE', key(q, 'batch_live'), id) then
    return 0
  end
  redis.call('HSETNX', key(q, 'batch', id), 'cancelling_at', at)
  return 1
end

register('batch_open', batch_open, {})
register('batch_lease', batch_lease, { 'allow-oom' })
register('batch_write', batch_write, { 'allow-oom' })
register('batch_cancel', batch_cancel, { 'allow-oom' })
