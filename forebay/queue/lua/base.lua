-- Shared by every function of the library: context, counters, what is known of a task.
-- VERSION, KEY, FOLLOWS (the transition table) and HELD (states in a worker's hands) come before
-- this text; the loader writes them.

-- Where later parts take part in the life of a task. Lists of functions, called in order.
local ON_ENQUEUE = {} -- f(q, task): before any cap; a reply ends the enqueue, nil lets it go on
local ON_KEEP = {} -- f(q, task, fields): the task's hash is about to be written, with these fields
local ON_CLOSE = {} -- f(q, id, state, t): the task has ended; t: what load() read before
local ON_RETURN = {} -- f(q, id, t, why): a delivery has come to nothing, and the task waits again
local ON_FLUSH = {} -- f(q): the end of every call, also of one that failed: what q holds is written
local ON_FORGET = {} -- f(q, id, t): a dead letter, whose request was kept, goes for good
local ON_DELETED = {} -- f(q, id): the hash of a task that had not ended was deleted by hand
-- What load() reads of a task, as t[name]; a part that needs a field in ON_CLOSE adds its name.
local FIELDS = {
  'state', 'tenant', 'priority', 'cost', 'seq', 'fence', 'deliveries', 'deadline', 'weight',
  'worker', 'cancel', 'eta', 'idem', 'reuse', 'created', 'returned',
}
local NUMBERS = { 'cost', 'seq', 'fence', 'deliveries', 'deadline' }

local LEVELS = 10
-- Names of the counters of the tasks in the lines of a level: by level, and all of them.
local WAITING, WAITING_ALL = {}, {}
for level = 0, LEVELS - 1 do
  WAITING[level] = 'waiting:' .. level
  WAITING_ALL[level + 1] = WAITING[level]
end
local GRACE_MS = 86400000 -- a dead letter's keys outlive its time, so that it is forgotten whole
local SWEEP_LIMIT = 100 -- bounds the work that one call does for others
local AT_ONCE = 500 -- members in one command; Lua bounds how many values it hands over
local QUIET_MS = 2000 -- while the server can be reached, workers are heard of more often than this
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

-- ARGV[1] of every function: the numbers that LIMITS names. Processes with the same settings send the
-- same text, so it is read once.
local LIMITS = {
  'lease_ms', 'max_deliveries', 'ttl_ms', 'dead_ttl_ms', 'stream_ttl_ms', 'cache_ms', 'blob_ttl_ms',
}
local ARGS = 1 -- arguments that open() takes
local MOST_LIMITS_KNOWN = 64
local limits_known, limits_seen = {}, 0

local function limits_of(text)
  local limits = limits_known[text]
  if not limits then
    limits = {}
    limits.__index = limits
    local at = 0
    for number in string.gmatch(text, '%S+') do
      at = at + 1
      limits[LIMITS[at]] = tonumber(number)
    end
    if limits_seen == MOST_LIMITS_KNOWN then
      limits_known, limits_seen = {}, 0
    end
    limits_known[text], limits_seen = limits, limits_seen + 1
  end
  return limits
end

-- What a call knows; us, now (ms): the queue's own time, by which it acts; wall (ms): the server's,
-- which people are told. All keys share the hash tag of KEYS[1], so a cluster routes them together.
local function open(keys, args)
  local t = redis.call('TIME')
  local wall_us = tonumber(t[1]) * 1000000 + tonumber(t[2])
  local changed = {}
  local us = own_time(keys[1], wall_us, changed)
  return setmetatable({
    prefix = string.sub(keys[1], 1, -1 - #KEY.meta),
    us = us,
    now = math.floor(us / 1000),
    wall = math.floor(wall_us / 1000),
    meta = {},
    changed = changed,
    tenants = {},
    heard = {}, -- group -> its workers that were heard of
    leased = {}, -- worker -> ids that it is given
    ended = {}, -- worker -> ids whose leases have come to their end
    lines = {}, -- line that tasks are taken from -> how far
    rings = {}, -- level -> whose turns have passed
  }, limits_of(args[1]))
end

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
local function look_up_all(q)
  for name, value in pairs(by_name(redis.call('HGETALL', key(q, 'meta')))) do
    if not q.meta[name] then
      q.meta[name] = tonumber(value)
    end
  end
  q.whole = true
end

-- For a call that needs a few of them: reading all would be a tenth of its work.
local function look_up(q, names)
  local values = redis.call('HMGET', key(q, 'meta'), unpack(names))
  for i = 1, #names do
    q.meta[names[i]] = q.meta[names[i]] or tonumber(values[i]) or 0
  end
end

local function count(q, name)
  local value = q.meta[name]
  if not value and not q.whole then
    look_up_all(q)
    value = q.meta[name]
  end
  return value or 0
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

-- Call a command with all members of a list, a part at a time; `each`: values that belong together.
local function in_parts(list, each, command, name)
  local sum, size = 0, AT_ONCE - AT_ONCE % each
  for first = 1, #list, size do
    local last = math.min(first + size - 1, #list)
    sum = sum + redis.call(command, name, unpack(list, first, last))
  end
  return sum
end

local function flush_counters(q)
  local flat = {}
  for name, value in pairs(q.changed) do
    flat[#flat + 1] = name
    flat[#flat + 1] = value
  end
  if #flat > 0 then
    redis.call('HSET', key(q, 'meta'), unpack(flat))
  end
end

-- Every function that may write ends with it; see register.lua. What a batch does to an index is written at once.
local function flush(q)
  for _, f in ipairs(ON_FLUSH) do
    f(q)
  end
  flush_counters(q)
  for tenant, by in pairs(q.tenants) do
    if by.tasks ~= 0 or by.tokens ~= 0 then
      flush_tenant(q, tenant, by)
    end
  end
end

-- Add a field that not every task has.
local function with(fields, name, value)
  if value then
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
end

local function with_numbers(t)
  for i = 1, #NUMBERS do
    local name = NUMBERS[i]
    t[name] = tonumber(t[name]) or 0
  end
  t.weight = tonumber(t.weight) or 1
  return t
end

-- What is known of a task, by FIELDS; t.state is nil for an unknown one.
local function load(q, id)
  local values = redis.call('HMGET', key(q, 'task', id), unpack(FIELDS))
  local t = {}
  for i = 1, #FIELDS do
    t[FIELDS[i]] = values[i] or nil
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
-- that looks a moment later still finds it. A worker waits only after a claim that gave it nothing,
-- and that claim takes `awake` back; while it stands, nobody who waits lacks a hint.
local function wake(q)
  if count(q, 'awake') == 0 then
    redis.call('XADD', key(q, 'wake'), 'MAXLEN', 1, '*', 'w', '')
    put(q, 'awake', 1)
  end
end

local function say(q, id, ttl_ms, ...)
  local stream = key(q, 'stream', id)
  local entry = redis.call('XADD', stream, '*', ...)
  redis.call('PEXPIRE', stream, ttl_ms)
  return entry
end
