-- Shared by every function of the library: context, counters, what is known of a task.
-- VERSION, KEY, FOLLOWS (the transition table) and HELD (states in a worker's hands) come before
-- this text; the loader writes them.

-- Where later parts take part in the life of a task. Lists of functions, called in order.
local ON_ENQUEUE = {} -- f(q, task): before any cap; a reply ends the enqueue, nil lets it go on
local ON_KEEP = {} -- f(q, task): the task's hash and body have just been written
local ON_CLOSE = {} -- f(q, id, state, t): the task has ended; t: what load() read before
local ON_FORGET = {} -- f(q, id, t): a dead letter, whose request was kept, goes for good
-- What load() reads of a task, as t[name]; a part that needs a field in ON_CLOSE adds its name.
local FIELDS = {
  'state', 'tenant', 'priority', 'cost', 'seq', 'fence', 'deliveries', 'deadline', 'weight',
  'worker', 'cancel', 'eta', 'idem', 'reuse',
}
local NUMBERS = { cost = 0, seq = 0, fence = 0, deliveries = 0, deadline = 0, weight = 1 }

local LEVELS = 10
local GRACE_MS = 86400000 -- a dead letter's keys outlive its time, so that it is forgotten whole
local SWEEP_LIMIT = 100 -- bounds the work that one call does for others
local NOTE_MS = 100 -- how often the time is noted that must not be fallen behind

-- The queue's own time, in microseconds: the server's, and so much ahead of it as its clock has been
-- put back. So it never goes back by more than NOTE_MS, and no lease, delay, deadline or sign of life
-- comes to lie in a future that nobody meant. `changed`: what is to be noted of it in `meta`.
local function own_time(meta, wall_us, changed)
  local noted = redis.call('HMGET', meta, 'time', 'ahead')
  local last, ahead = (tonumber(noted[1]) or 0) * 1000, tonumber(noted[2]) or 0
  if wall_us + ahead < last then
    ahead = last - wall_us
    changed.ahead = ahead
  end
  local us = wall_us + ahead
  if us >= last + NOTE_MS * 1000 then
    changed.time = math.floor(us / 1000)
  end
  return us
end

-- ARGV of every function begins with lease_ms, max_deliveries, result_ttl_ms, dead_ttl_ms,
-- stream_ttl_ms, cache_ms, blob_ttl_ms. All keys share the hash tag of KEYS[1], so a cluster routes
-- them together. us, now (ms): the queue's own time, by which it acts; wall (ms): the server's, which
-- people are told.
local function open(keys, args)
  local t = redis.call('TIME')
  local wall_us = tonumber(t[1]) * 1000000 + tonumber(t[2])
  local changed = {}
  local us = own_time(keys[1], wall_us, changed)
  return {
    prefix = string.sub(keys[1], 1, -1 - #KEY.meta),
    us = us,
    now = math.floor(us / 1000),
    wall = math.floor(wall_us / 1000),
    lease_ms = tonumber(args[1]),
    max_deliveries = tonumber(args[2]),
    ttl_ms = tonumber(args[3]),
    dead_ttl_ms = tonumber(args[4]),
    stream_ttl_ms = tonumber(args[5]),
    cache_ms = tonumber(args[6]),
    blob_ttl_ms = tonumber(args[7]),
    changed = changed,
    tenants = {},
  }
end

local ARGS = 7 -- arguments that open() takes

local function key(q, name, suffix)
  return q.prefix .. KEY[name] .. (suffix or '')
end

local function line_key(q, priority, tenant)
  return key(q, 'line', priority .. ':' .. tenant)
end

local function number(value)
  return tonumber(value) or 0
end

local function by_name(flat)
  local named = {}
  for i = 1, #flat, 2 do
    named[flat[i]] = flat[i + 1]
  end
  return named
end

-- Counters of the queue: read once a call, kept in q, written once by flush().
local function count(q, name)
  if not q.meta then
    q.meta = by_name(redis.call('HGETALL', key(q, 'meta')))
  end
  return number(q.meta[name])
end

local function put(q, name, value)
  if count(q, name) ~= value then
    q.meta[name] = value
    q.changed[name] = value
  end
end

local function bump(q, name, by)
  put(q, name, count(q, name) + by)
end

local function flush_tenant(q, tenant, by)
  local tenants = key(q, 'tenants')
  if redis.call('HINCRBY', tenants, 'n:' .. tenant, by.tasks) <= 0 then
    redis.call('HDEL', tenants, 'n:' .. tenant, 'c:' .. tenant)
  else
    redis.call('HINCRBY', tenants, 'c:' .. tenant, by.tokens)
  end
end

-- Every function that may write ends with it; see register.lua.
local function flush(q)
  local flat = {}
  for name, value in pairs(q.changed) do
    flat[#flat + 1] = name
    flat[#flat + 1] = value
  end
  if #flat > 0 then
    redis.call('HSET', key(q, 'meta'), unpack(flat))
  end
  for tenant, by in pairs(q.tenants) do
    if by.tasks ~= 0 or by.tokens ~= 0 then
      flush_tenant(q, tenant, by)
    end
  end
end

local function with_numbers(t)
  for name, default in pairs(NUMBERS) do
    t[name] = tonumber(t[name]) or default
  end
  return t
end

-- What is known of a task, by FIELDS; t.state is nil for an unknown one.
local function load(q, id)
  local values = redis.call('HMGET', key(q, 'task', id), unpack(FIELDS))
  local t = {}
  for i, name in ipairs(FIELDS) do
    t[name] = values[i] or nil
  end
  return with_numbers(t)
end

-- Every change of a state passes here.
local function step(t, after)
  if not (FOLLOWS[t.state] and FOLLOWS[t.state][after]) then
    error('no task goes from ' .. tostring(t.state) .. ' to ' .. after)
  end
  t.state = after
end

-- A hint for blocked workers. A stream rather than a list: every waiting worker sees it, and one
-- that looks a moment later still finds it.
local function wake(q)
  redis.call('XADD', key(q, 'wake'), 'MAXLEN', 1, '*', 'w', '')
end

local function say(q, id, ttl_ms, ...)
  local stream = key(q, 'stream', id)
  local entry = redis.call('XADD', stream, '*', ...)
  redis.call('PEXPIRE', stream, ttl_ms)
  return entry
end
