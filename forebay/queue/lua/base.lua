-- Shared by every function of the library: context, lines of waiting tasks, ends of tasks.
-- VERSION and KEY come before this text; the loader writes them from schema.py.

local PRIORITIES = { '0', '1', '2', '3', '4', '5', '6', '7', '8', '9' }
local WAITING = {}
for at, class in ipairs(PRIORITIES) do
  WAITING[at] = 'waiting:' .. class
end
local SWEEP_LIMIT = 100 -- bounds the work that one call does for others

-- ARGV of every function begins with lease_ms, max_deliveries, result_ttl_ms, dead_ttl_ms,
-- stream_ttl_ms. All keys share the hash tag of KEYS[1], so a cluster routes them together.
local function open(keys, args)
  local t = redis.call('TIME')
  local us = tonumber(t[1]) * 1000000 + tonumber(t[2])
  return {
    prefix = string.sub(keys[1], 1, -1 - #KEY.meta),
    us = us,
    now = math.floor(us / 1000),
    lease_ms = tonumber(args[1]),
    max_deliveries = tonumber(args[2]),
    ttl_ms = tonumber(args[3]),
    dead_ttl_ms = tonumber(args[4]),
    stream_ttl_ms = tonumber(args[5]),
  }
end

local ARGS = 5 -- arguments that open() takes

local function key(q, name, suffix)
  return q.prefix .. KEY[name] .. (suffix or '')
end

local function line_key(q, priority, tenant)
  return key(q, 'line', priority .. ':' .. tenant)
end

local function read(q, id, ...)
  return redis.call('HMGET', key(q, 'task', id), ...)
end

local function number(value)
  return tonumber(value) or 0
end

-- A hint for blocked workers. A stream rather than a list: every waiting worker sees it, and one
-- that looks a moment later still finds it.
local function wake(q)
  redis.call('XADD', key(q, 'wake'), 'MAXLEN', 1, '*', 'w', '')
end

local function say(q, id, ...)
  local stream = key(q, 'stream', id)
  local entry = redis.call('XADD', stream, '*', ...)
  redis.call('PEXPIRE', stream, q.stream_ttl_ms)
  return entry
end

-- Put a task into its tenant's line. A tenant without work starts at the ring's clock: being away
-- earns nothing; one whose last tag lies ahead keeps it: leaving and coming back earns nothing.
local function join(q, id, tenant, priority, seq, cost)
  redis.call('ZADD', line_key(q, priority, tenant), seq, id)
  local clock = redis.call('HGET', key(q, 'meta'), 'clock:' .. priority) or 0
  redis.call('ZADD', key(q, 'ring', priority), 'NX', clock, tenant)
  redis.call('HINCRBY', key(q, 'meta'), 'waiting:' .. priority, 1)
  redis.call('HINCRBY', key(q, 'meta'), 'tokens', cost)
end

-- Take a waiting task out of wherever it waits.
local function leave(q, id, tenant, priority, cost)
  if redis.call('ZREM', line_key(q, priority, tenant), id) == 1 then
    redis.call('HINCRBY', key(q, 'meta'), 'waiting:' .. priority, -1)
  else
    redis.call('ZREM', key(q, 'suspects'), id)
  end
  redis.call('HINCRBY', key(q, 'meta'), 'tokens', -cost)
  redis.call('ZREM', key(q, 'deadlines'), id)
end

local function suspect(q, id, seq, cost, deadline)
  redis.call('ZADD', key(q, 'suspects'), seq, id)
  redis.call('HINCRBY', key(q, 'meta'), 'tokens', cost)
  if deadline > 0 then
    redis.call('ZADD', key(q, 'deadlines'), deadline, id)
  end
end

local function waiting(q)
  local counts = redis.call('HMGET', key(q, 'meta'), unpack(WAITING))
  local total = redis.call('ZCARD', key(q, 'suspects'))
  for i = 1, #counts do
    total = total + number(counts[i])
  end
  return total, counts
end

-- The last word on a task: its state, its terminal stream entry and its time to live, at once.
-- `fields`: hash fields of the result; `entry`: fields of the stream entry.
local function close(q, id, state, fields, entry)
  local task = key(q, 'task', id)
  redis.call('HSET', task, 'state', state, 'finished', q.now, unpack(fields))
  if state == 'dead' then
    redis.call('ZADD', key(q, 'dead'), q.now, id)
    redis.call('PEXPIRE', key(q, 'dead'), q.dead_ttl_ms)
    redis.call('PEXPIRE', task, q.dead_ttl_ms)
  else
    redis.call('HDEL', task, 'request', 'cancel', 'nonce', 'append')
    redis.call('PEXPIRE', task, q.ttl_ms)
  end
  say(q, id, unpack(entry))
  redis.call('PEXPIRE', key(q, 'stream', id), q.ttl_ms)
end

local function close_error(q, id, state, code, message)
  local kind = state == 'cancelled' and 'cancelled' or 'error'
  close(
    q,
    id,
    state,
    { 'code', code, 'message', message },
    { 'k', kind, 'code', code, 'message', message }
  )
end

local function cancelled(q, id)
  close_error(q, id, 'cancelled', 'cancelled', 'The task was cancelled.')
end

local function expired(q, id)
  close_error(q, id, 'expired', 'expired', 'The deadline passed before the task could start.')
end

-- Take a task out of its worker's hands. The fence rises, so whatever that worker still writes
-- is refused from here on.
local function unlease(q, id, worker)
  redis.call('ZREM', key(q, 'leases'), id)
  redis.call('SREM', key(q, 'solo'), id)
  if worker then
    redis.call('SREM', key(q, 'held', worker), id)
  end
end

-- A worker died with this task in its hands, or lost it, or says `why` its delivery came to nothing.
-- The task may be the cause, so it waits apart and is delivered alone from now on.
local function lost(q, id, why)
  local t = read(q, id, 'state', 'worker', 'deliveries', 'cancel', 'seq', 'cost', 'deadline')
  unlease(q, id, t[2])
  if t[1] ~= 'leased' then
    return false
  end
  redis.call('HINCRBY', key(q, 'task', id), 'fence', 1)
  local deadline = number(t[7])
  if t[4] then
    cancelled(q, id)
  elseif number(t[3]) >= q.max_deliveries then
    close_error(
      q,
      id,
      'dead',
      'dead_letter',
      'Delivered '
        .. t[3]
        .. ' times, and each time its worker died or lost it.'
        .. (why and ' The last time: ' .. why .. '.' or '')
    )
  elseif deadline > 0 and deadline <= q.now then
    expired(q, id)
  else
    redis.call('HSET', key(q, 'task', id), 'state', 'queued')
    suspect(q, id, t[5], number(t[6]), deadline)
    wake(q)
  end
  return true
end

-- Work that is due by the clock: leases that ran out, deadlines that passed, workers long silent.
local function sweep(q)
  local due =
    redis.call('ZRANGEBYSCORE', key(q, 'leases'), '-inf', q.now, 'LIMIT', 0, SWEEP_LIMIT)
  for _, id in ipairs(due) do
    lost(q, id)
  end
  due = redis.call('ZRANGEBYSCORE', key(q, 'deadlines'), '-inf', q.now, 'LIMIT', 0, SWEEP_LIMIT)
  for _, id in ipairs(due) do
    local t = read(q, id, 'tenant', 'priority', 'cost')
    if t[1] then
      leave(q, id, t[1], t[2], number(t[3]))
      expired(q, id)
    else
      redis.call('ZREM', key(q, 'deadlines'), id) -- its hash was deleted by hand
    end
  end
  redis.call('ZREMRANGEBYSCORE', key(q, 'workers'), '-inf', q.now - 10 * q.lease_ms)
  redis.call('ZREMRANGEBYSCORE', key(q, 'dead'), '-inf', q.now - q.dead_ttl_ms)
end
