-- The life of a task: its lines while it waits, its end, and what the clock does to it.

-- A waiting task counts against the caps of the queue and of its tenant, wherever it waits.
local function counted(q, t, by)
  bump(q, 'tasks', by)
  bump(q, 'tokens', by * t.cost)
  local tenant = q.tenants[t.tenant] or { tasks = 0, tokens = 0 }
  tenant.tasks = tenant.tasks + by
  tenant.tokens = tenant.tokens + by * t.cost
  q.tenants[t.tenant] = tenant
end

local function watch_deadline(q, id, t)
  if t.deadline > 0 then
    redis.call('ZADD', key(q, 'deadlines'), t.deadline, id)
  end
end

-- Order of arrival, also across a clock that steps back.
local function next_seq(q)
  put(q, 'seq', math.max(q.us, count(q, 'seq') + 1))
  return count(q, 'seq')
end

-- Put a task into its tenant's line. A tenant without work starts at the ring's clock: being away
-- earns nothing; one whose last tag lies ahead keeps it: leaving and coming back earns nothing.
local function stand(q, id, t)
  redis.call('ZADD', line_key(q, t.priority, t.tenant), t.seq, id)
  local clock = count(q, 'clock:' .. t.priority)
  redis.call('ZADD', key(q, 'ring', t.priority), 'NX', clock, t.tenant)
  bump(q, 'waiting:' .. t.priority, 1)
end

local function join(q, id, t)
  stand(q, id, t)
  counted(q, t, 1)
  watch_deadline(q, id, t)
end

local function suspect(q, id, t)
  redis.call('ZADD', key(q, 'suspects'), t.seq, id)
  counted(q, t, 1)
  watch_deadline(q, id, t)
end

-- One less in the lines of a level. With nobody left there, nobody's turn is worth keeping.
local function stepped_out(q, priority)
  bump(q, 'waiting:' .. priority, -1)
  if count(q, 'waiting:' .. priority) <= 0 then
    redis.call('DEL', key(q, 'ring', priority))
  end
end

-- Take a waiting task out of wherever it waits.
local function leave(q, id, t)
  if redis.call('ZREM', line_key(q, t.priority, t.tenant), id) == 1 then
    stepped_out(q, t.priority)
    counted(q, t, -1)
  elseif
    redis.call('ZREM', key(q, 'suspects'), id) == 1
    or redis.call('ZREM', key(q, 'delayed'), id) == 1
  then
    counted(q, t, -1)
  end
  if t.deadline > 0 then
    redis.call('ZREM', key(q, 'deadlines'), id)
  end
end

-- What is left of a task that had not ended, and whose hash someone deleted by hand.
local function deleted(q, id)
  redis.call('DEL', key(q, 'body', id))
  for _, f in ipairs(ON_DELETED) do
    f(q, id)
  end
end

-- A task whose hash someone deleted by hand must not stop its line for ever, nor count. What it
-- cost is not known any more: the sums are right again when nothing waits.
local function forget(q, id, priority, tenant)
  redis.call('ZREM', key(q, 'deadlines'), id)
  bump(q, 'tasks', -1)
  if tenant then
    redis.call('ZREM', line_key(q, priority, tenant), id)
    stepped_out(q, priority)
    q.tenants[tenant] = q.tenants[tenant] or { tasks = 0, tokens = 0 }
    q.tenants[tenant].tasks = q.tenants[tenant].tasks - 1
  end
  if count(q, 'tasks') <= 0 then
    put(q, 'tokens', 0)
    redis.call('DEL', key(q, 'tenants'))
    q.tenants = {}
  end
  deleted(q, id)
end

-- A task that has passed the door, as load() would return it. `task`: what enqueue was given.
local function received(q, task)
  local t = {
    state = 'received', tenant = task.tenant, priority = tostring(task.priority),
    cost = task.cost, seq = next_seq(q), fence = 0, deliveries = 0,
    deadline = task.deadline_ms and q.now + task.deadline_ms or 0,
    weight = task.weight or 1, idem = task.key, hook = task.hook, reuse = task.reuse,
  }
  step(t, 'queued')
  return t
end

-- Write a task that has passed the door; `t`: what received() made of it, where that has been asked.
-- What is not written is 0, and a task was created when it arrived, unless it says otherwise.
local function keep(q, task, t)
  t = t or received(q, task)
  local fields = {
    'state', t.state, 'tenant', t.tenant, 'priority', t.priority, 'model', task.model,
    'cost', t.cost, 'seq', t.seq,
  }
  with(fields, 'created', math.floor(t.seq / 1000) ~= q.wall and q.wall)
  with(fields, 'deadline', task.deadline_ms and t.deadline)
  with(fields, 'weight', task.weight)
  with(fields, 'idem', task.key)
  with(fields, 'hook', task.hook)
  with(fields, 'reuse', task.reuse)
  with(fields, 'eta', t.eta)
  for i = 1, #ON_KEEP do
    ON_KEEP[i](q, task, fields)
  end
  redis.call('HSET', key(q, 'task', task.id), unpack(fields))
  redis.call('SET', key(q, 'body', task.id), task.request)
  if task.key then
    local idem = key(q, 'idem', task.tenant .. ':' .. task.key)
    redis.call('SET', idem, task.id .. ' ' .. task.digest)
  end
  return t
end

-- The last word on a task: its state, its terminal stream entry and its time to live, at once.
-- `fields`: hash fields of the result; `entry`: fields of the stream entry; `text`: the answer.
local function close(q, id, t, state, fields, entry, text)
  step(t, state)
  local task, body = key(q, 'task', id), key(q, 'body', id)
  local ttl_ms = q.ttl_ms
  redis.call('HSET', task, 'state', state, 'finished', q.wall, unpack(fields))
  if state == 'dead' then
    -- The request is kept: an operator may look at it and send it back.
    ttl_ms = q.dead_ttl_ms + GRACE_MS
    redis.call('ZADD', key(q, 'dead'), q.now, id)
    redis.call('PEXPIRE', key(q, 'dead'), ttl_ms)
    redis.call('PEXPIRE', body, ttl_ms)
  elseif text then
    redis.call('SET', body, text, 'PX', ttl_ms)
  else
    redis.call('DEL', body)
  end
  redis.call('PEXPIRE', task, ttl_ms)
  if t.idem then
    redis.call('PEXPIRE', key(q, 'idem', t.tenant .. ':' .. t.idem), ttl_ms)
  end
  say(q, id, ttl_ms, unpack(entry))
  for _, f in ipairs(ON_CLOSE) do
    f(q, id, state, t)
  end
end

local function close_error(q, id, t, state, code, message)
  local kind = state == 'cancelled' and 'cancelled' or 'error'
  close(
    q, id, t, state,
    { 'code', code, 'message', message },
    { 'k', kind, 'code', code, 'message', message }
  )
end

local function cancelled(q, id, t)
  close_error(q, id, t, 'cancelled', 'cancelled', 'The task was cancelled.')
end

local function expired(q, id, t)
  close_error(
    q, id, t, 'expired', 'expired', 'The deadline passed before the task could start.'
  )
end

local function solos(q)
  q.solos = q.solos or redis.call('SCARD', key(q, 'solo'))
  return q.solos
end

local function not_solo(q, id)
  if solos(q) > 0 then
    q.solos = q.solos - redis.call('SREM', key(q, 'solo'), id)
  end
end

local function fewer_leases(q, by, tokens)
  bump(q, 'leases', -by)
  bump(q, 'running', -tokens)
  if count(q, 'leases') <= 0 then
    put(q, 'running', 0) -- right again after hashes deleted by hand
  end
end

-- Take a task out of its worker's hands. `t` is nil where its hash was deleted by hand.
local function unlease(q, id, t, worker)
  tick(q)
  not_solo(q, id)
  if worker then
    redis.call('SREM', key(q, 'held', worker), id)
  end
  if redis.call('ZREM', key(q, 'leases'), id) == 1 then
    fewer_leases(q, 1, t and t.cost or 0)
  end
end

-- The same for a task that ends in a worker's hands, as most do: those of one call leave together.
local function unlease_ended(q, id, t)
  tick(q)
  not_solo(q, id)
  local worker = t.worker or ''
  local ended = q.ended[worker] or { tokens = 0 }
  q.ended[worker] = ended
  ended[#ended + 1] = id
  ended.tokens = ended.tokens + t.cost
end

ON_FLUSH[#ON_FLUSH + 1] = function(q)
  for worker, ended in pairs(q.ended) do
    in_parts(ended, 1, 'SREM', key(q, 'held', worker))
    fewer_leases(q, in_parts(ended, 1, 'ZREM', key(q, 'leases')), ended.tokens)
  end
end

-- Back into the queue, and `why`. The fence rises, so whatever the worker still writes is refused.
local function requeue(q, id, t, deliveries, why)
  for _, f in ipairs(ON_RETURN) do
    f(q, id, t, why)
  end
  if t.state ~= 'leased' then
    redis.call('HDEL', key(q, 'task', id), 'encoding', 'prefill', 'decode')
  end
  step(t, 'queued')
  redis.call(
    'HSET', key(q, 'task', id), 'state', t.state, 'fence', t.fence + 1, 'deliveries', deliveries,
    'returned', q.now
  )
end

-- Whether a task that comes out of a worker's hands ends rather than wait again; it has then ended.
local function ends_here(q, id, t)
  if t.cancel then
    cancelled(q, id, t)
  elseif t.deadline > 0 and t.deadline <= q.now then
    expired(q, id, t)
  else
    return false
  end
  redis.call('HSET', key(q, 'task', id), 'fence', t.fence + 1)
  return true
end

local function dead_letter(q, id, t, why)
  local message = 'Delivered '
    .. t.deliveries
    .. ' times, and each time its worker died or lost it.'
    .. (why and ' The last time: ' .. why .. '.' or '')
  redis.call('HSET', key(q, 'task', id), 'fence', t.fence + 1)
  close_error(q, id, t, 'dead', 'dead_letter', message)
end

-- A canary has failed at a task, or lost it. It is not the task that is in question: it takes its old
-- place in its line, for a stable worker, and nothing is counted against it.
local function spare(q, id, t, why)
  if not ends_here(q, id, t) then
    requeue(q, id, t, t.deliveries - 1, why)
    redis.call('HSET', key(q, 'task', id), 'group', STABLE)
    join(q, id, t)
    wake(q)
  end
end

-- A worker died with this task in its hands, or lost it, or says `why` its delivery came to nothing.
-- The task may be the cause, so it waits apart and is delivered alone from now on.
local function lost(q, id, why)
  local t = load(q, id)
  unlease(q, id, t.state and t, t.worker)
  if not t.state then
    deleted(q, id)
  end
  if not HELD[t.state] then
    return false
  end
  count_end(q, id, t, 'lost')
  if t.group == CANARY then
    spare(q, id, t, why)
  elseif not t.cancel and t.deliveries >= q.max_deliveries then
    dead_letter(q, id, t, why)
  elseif not ends_here(q, id, t) then
    requeue(q, id, t, t.deliveries, why)
    suspect(q, id, t)
    wake(q)
  end
  return true
end

local function due(q, name, at)
  return redis.call('ZRANGEBYSCORE', key(q, name), '-inf', at, 'LIMIT', 0, SWEEP_LIMIT)
end

-- Until when leases have run out. While the server is away nobody can renew one, and the workers live
-- on: after a time in which nobody was heard, what was leased before has that much longer.
local function leases_until(q)
  local swept = count(q, 'swept')
  local quiet = swept > 0 and q.now - swept or 0
  if quiet > QUIET_MS then
    put(q, 'quiet', quiet)
    put(q, 'quiet_until', q.now)
  end
  if swept == 0 or quiet < 0 or quiet > QUIET_MS / 4 then
    put(q, 'swept', q.now)
  end
  local after = q.now - count(q, 'quiet_until')
  return after < q.lease_ms and q.now - count(q, 'quiet') or q.now
end

local function overdue(q, id)
  local t = load(q, id)
  if t.state == 'queued' then
    leave(q, id, t)
    expired(q, id, t)
  else
    redis.call('ZREM', key(q, 'deadlines'), id) -- its hash was deleted by hand
  end
end

-- A task whose delay is over arrives now, behind those that have waited meanwhile.
local function arrive(q, id)
  redis.call('ZREM', key(q, 'delayed'), id)
  local t = load(q, id)
  if not t.state then
    forget(q, id)
    return
  end
  local created = t.created or math.floor(t.seq / 1000)
  t.seq = next_seq(q)
  redis.call('HSET', key(q, 'task', id), 'seq', t.seq, 'created', created)
  stand(q, id, t)
  wake(q)
end

-- Work that is due by the clock: leases that ran out, deadlines that passed, delays that are over.
local function sweep(q)
  for _, id in ipairs(due(q, 'leases', leases_until(q))) do
    lost(q, id)
  end
  for _, id in ipairs(due(q, 'deadlines', q.now)) do
    overdue(q, id)
  end
  for _, id in ipairs(due(q, 'delayed', q.now)) do
    arrive(q, id)
  end
end

local function forget_dead(q, id, t)
  redis.call('ZREM', key(q, 'dead'), id)
  for _, f in ipairs(ON_FORGET) do
    f(q, id, t)
  end
  redis.call('DEL', key(q, 'task', id), key(q, 'body', id), key(q, 'stream', id))
  if t.idem then
    redis.call('DEL', key(q, 'idem', t.tenant .. ':' .. t.idem))
  end
end

-- What only takes room: workers long silent, dead letters whose time is over.
local function tidy(q)
  redis.call('ZREMRANGEBYSCORE', key(q, 'workers'), '-inf', q.now - 10 * q.lease_ms)
  redis.call('ZREMRANGEBYSCORE', key(q, 'canaries'), '-inf', q.now - 10 * q.lease_ms)
  local old = q.now - q.dead_ttl_ms
  local over = redis.call('ZRANGEBYSCORE', key(q, 'dead'), '-inf', old, 'LIMIT', 0, SWEEP_LIMIT)
  for _, id in ipairs(over) do
    forget_dead(q, id, load(q, id))
  end
end
