-- The door's side: enqueue, describe, cancel, depth.

-- A refusal keeps nothing: what it is about, how much there is of it, and when to come again.
local function refusal(kind, what, there, retry_ms)
  return { kind, what, there, math.ceil(retry_ms) }
end

-- The task that was enqueued before under the same idempotency key.
local function same_key(q, task)
  if not task.key then
    return nil
  end
  local there = redis.call('GET', key(q, 'idem', task.tenant .. ':' .. task.key))
  if not there then
    return nil
  end
  local id, digest = string.match(there, '^(%S+) (%S*)$')
  local t = load(q, id)
  if not t.state then
    return nil -- its hash was deleted by hand
  elseif digest ~= task.digest then
    return refusal('conflict', id, 0, 0)
  end
  return known(q, id, t, false)
end

-- args: tenant, idempotency key, digest. Returns what enqueue would for the task under this key, else {}.
local function replay(q, args)
  local tenant, name, digest = unpack(args, ARGS + 1)
  return same_key(q, { tenant = tenant, key = name, digest = digest }) or {}
end

-- The generic cell rate algorithm: one number a tenant, the time at which its next task would be
-- exactly on time; `burst` tasks may be early.
local function cell(q, task)
  if not task.rate then
    return 0, 0
  end
  local now, between = q.us / 1000, 1000 / task.rate
  local next_ms = math.max(now, number(redis.call('GET', key(q, 'rate', task.tenant))))
  return next_ms + between, next_ms - (task.burst - 1) * between - now
end

local function refused(q, task, early_ms)
  if early_ms > 0 then
    return refusal('rate', 'tasks', 0, early_ms)
  end
  local tasks, tokens = count(q, 'tasks'), count(q, 'tokens')
  local each = tasks > 0 and tokens / tasks or 0
  if tasks >= task.max_tasks then
    local over = (tasks + 1 - task.max_tasks) * each
    return refusal('full', 'tasks', tasks, drained_in(q, over, 1, task.retry_ms))
  end
  if tasks > 0 and tokens + task.cost > task.max_tokens then
    local over = tokens + task.cost - task.max_tokens
    return refusal('full', 'tokens', tokens, drained_in(q, over, 1, task.retry_ms))
  end
  if not (task.tenant_tasks or task.tenant_tokens) then
    return nil
  end
  local tenants = key(q, 'tenants')
  local of = redis.call('HMGET', tenants, 'n:' .. task.tenant, 'c:' .. task.tenant)
  tasks, tokens = number(of[1]), number(of[2])
  local share = 2 / math.max(2, redis.call('HLEN', tenants)) -- two fields a tenant
  if task.tenant_tasks and tasks >= task.tenant_tasks then
    local over = (tasks + 1 - task.tenant_tasks) * tokens / math.max(1, tasks)
    return refusal('quota', 'tasks', tasks, drained_in(q, over, share, task.retry_ms))
  end
  if task.tenant_tokens and tasks > 0 and tokens + task.cost > task.tenant_tokens then
    local over = tokens + task.cost - task.tenant_tokens
    return refusal('quota', 'tokens', tokens, drained_in(q, over, share, task.retry_ms))
  end
  return nil
end

-- The task that an enqueue finds rather than makes: by its id or by its idempotency key.
local function found(q, task)
  if redis.call('EXISTS', key(q, 'task', task.id)) == 1 then
    return known(q, task.id, load(q, task.id), true)
  end
  return same_key(q, task)
end

local function asked(args)
  local task = cjson.decode(args[ARGS + 3])
  task.id, task.request = args[ARGS + 1], args[ARGS + 2]
  return task
end

-- args: those of enqueue, whose request is not looked at. Returns what enqueue would where it finds a
-- task, else {}. For a server too full to be asked by enqueue: a try before this one may have been
-- acted on, and nobody is to be told that a task was refused which will run.
local function admitted(q, args)
  return found(q, asked(args)) or {}
end

-- The counters that enqueue needs, for each level.
local COUNTERS = {}
for level = 0, LEVELS - 1 do
  COUNTERS[level] = {
    'tasks', 'tokens', 'seq', 'awake', 'work', 'busy', 'drained', 'hungry', 'running',
    'clock:' .. level, WAITING[level],
  }
end

-- args: id, request, and as JSON what else is known of the task (see library_door.py for the names;
-- what is absent was not asked for). Enqueueing an id again changes nothing, so a retry is safe.
-- Returns {'ok', id, tasks ahead, ms until the start, fresh, reuse} or a refusal.
local function enqueue(q, args)
  local task = asked(args)
  local reply = found(q, task)
  if reply then
    return reply
  end
  look_up(q, COUNTERS[task.priority])
  for _, f in ipairs(ON_ENQUEUE) do
    reply = reply or f(q, task)
  end
  if reply then
    return reply
  end
  local next_ms, early_ms = cell(q, task)
  reply = refused(q, task, early_ms)
  if reply then
    return reply
  end
  if task.rate then
    local left = math.ceil(next_ms - q.us / 1000)
    redis.call('SET', key(q, 'rate', task.tenant), next_ms, 'PX', math.max(1, left))
  end
  local t = received(q, task)
  if task.delay_ms then
    redis.call('ZADD', key(q, 'delayed'), q.now + task.delay_ms, task.id)
    counted(q, t, 1)
    watch_deadline(q, task.id, t)
    keep(q, task, t)
    wake(q) -- an idle worker waits no longer than until the next one is due
    return known(q, task.id, t, true)
  end
  join(q, task.id, t)
  local ahead = position_of_last(q, t)
  local ms = eta(q, ahead)
  t.eta = ms >= 0 and ms or nil
  keep(q, task, t)
  wake(q)
  return { 'ok', task.id, ahead, ms, 1, t.reuse or '' }
end

-- args: id. Returns {} or {fields and values, tasks ahead, ms until the start, answer}.
local function describe(q, args)
  local id = args[ARGS + 1]
  local fields = redis.call('HGETALL', key(q, 'task', id))
  if #fields == 0 then
    return {}
  end
  local t = with_numbers(by_name(fields))
  local ahead, ms = outlook(q, id, t)
  local text = t.state == 'finished' and redis.call('GET', key(q, 'body', id))
  return { fields, ahead, ms, text or '' }
end

-- args: id. A waiting task ends at once; a held one is flagged for its worker's next heartbeat.
local function cancel(q, args)
  local id = args[ARGS + 1]
  local t = load(q, id)
  if t.state == 'queued' then
    leave(q, id, t)
    cancelled(q, id, t)
    return 1
  elseif HELD[t.state] then
    redis.call('HSET', key(q, 'task', id), 'cancel', 1)
    return 1
  end
  return 0
end

-- The line whose head has waited longest, over the tenants whose turn is nearest.
local function oldest(q)
  local first = redis.call('ZRANGE', key(q, 'suspects'), 0, 0, 'WITHSCORES')[2]
  first = first and tonumber(first) or math.huge
  for level = 0, LEVELS - 1 do
    if count(q, 'waiting:' .. level) > 0 then
      for _, tenant in ipairs(redis.call('ZRANGE', key(q, 'ring', level), 0, 999)) do
        local head = redis.call('ZRANGE', line_key(q, level, tenant), 0, 0, 'WITHSCORES')[2]
        first = math.min(first, head and tonumber(head) or math.huge)
      end
    end
  end
  if first == math.huge then
    return 0
  end
  return math.max(0, math.floor((q.us - first) / 1000))
end

-- Returns waiting, leased, dead, waiting tokens, age of the oldest waiting task in ms, delayed (they
-- wait too), 1 when drained, in ms the mean wait and the mean error of the estimates (or -1), and the
-- tokens of cost answered in 1000 s of work (or -1).
local function depth(q)
  sweep(q)
  tidy(q)
  tick(q)
  return {
    count(q, 'tasks'),
    redis.call('ZCARD', key(q, 'leases')),
    redis.call('ZCARD', key(q, 'dead')),
    count(q, 'tokens'),
    oldest(q),
    redis.call('ZCARD', key(q, 'delayed')),
    count(q, 'drained'),
    math.floor(mean(q, 'wait', 'waits')),
    math.floor(mean(q, 'miss', 'misses')),
    rate(q) and math.floor(rate(q) * 1000000) or -1,
    count(q, 'ended'),
  }
end

-- Returns how many workers were heard of within one lease that any task may come to.
local function workers(q)
  look_up(q, { 'canary_share' })
  local canaries = count(q, 'canary_share') >= 1 and heard_of(q, CANARY) or 0
  return heard_of(q, STABLE) + canaries
end
