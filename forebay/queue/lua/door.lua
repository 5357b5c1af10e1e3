-- The door's side: enqueue, describe, cancel, depth.

-- Tasks ahead, as an estimate that costs O(log n): suspects and more urgent classes whole, and of
-- the own class what a fair turn for every tenant lets pass, at most all of it.
local function position(q, id, tenant, priority)
  local total, counts = waiting(q)
  local rank = redis.call('ZRANK', line_key(q, priority, tenant), id)
  if not rank then
    return redis.call('ZRANK', key(q, 'suspects'), id) or -1
  end
  local ahead = redis.call('ZCARD', key(q, 'suspects'))
  for i, class in ipairs(PRIORITIES) do
    if class == priority then
      local tenants = redis.call('ZCARD', key(q, 'ring', class))
      return ahead + math.max(rank, math.min(number(counts[i]) - 1, rank * tenants))
    end
    ahead = ahead + number(counts[i])
  end
  return total
end

-- args: id, tenant, priority, model, request, cost, deadline in ms from now (0: none),
-- max_waiting, max_waiting_tokens. Enqueueing an id again changes nothing, so a retry is safe.
local function enqueue(keys, args)
  local q = open(keys, args)
  local id, tenant, priority, model, request, cost, deadline, max_waiting, max_tokens =
    unpack(args, ARGS + 1)
  local task = key(q, 'task', id)
  if redis.call('EXISTS', task) == 1 then
    return { 'ok', position(q, id, tenant, priority) }
  end
  cost, deadline = number(cost), number(deadline)
  local total = waiting(q)
  local meta = redis.call('HMGET', key(q, 'meta'), 'tokens', 'seq')
  if total >= number(max_waiting) then
    return { 'full', 'tasks', total }
  end
  if total > 0 and number(meta[1]) + cost > number(max_tokens) then
    return { 'full', 'tokens', number(meta[1]) }
  end
  -- Order of arrival, also across a clock that steps back.
  local seq = math.max(q.us, number(meta[2]) + 1)
  redis.call('HSET', key(q, 'meta'), 'seq', seq)
  redis.call(
    'HSET', task, 'state', 'queued', 'tenant', tenant, 'priority', priority, 'model', model,
    'request', request, 'cost', cost, 'created', q.now, 'seq', seq, 'fence', 0, 'deliveries', 0
  )
  if deadline > 0 then
    redis.call('HSET', task, 'deadline', q.now + deadline)
    redis.call('ZADD', key(q, 'deadlines'), q.now + deadline, id)
  end
  join(q, id, tenant, priority, seq, cost)
  wake(q)
  return { 'ok', position(q, id, tenant, priority) }
end

-- args: id. Returns {} or {fields and values, position}; position is -1 unless queued.
local function describe(keys, args)
  local q = open(keys, args)
  local id = args[ARGS + 1]
  local fields = redis.call('HGETALL', key(q, 'task', id))
  if #fields == 0 then
    return {}
  end
  local t = read(q, id, 'state', 'tenant', 'priority')
  local place = t[1] == 'queued' and position(q, id, t[2], t[3]) or -1
  return { fields, place }
end

-- args: id. A waiting task ends at once; a leased one is flagged for its worker's next heartbeat.
local function cancel(keys, args)
  local q = open(keys, args)
  local id = args[ARGS + 1]
  local t = read(q, id, 'state', 'tenant', 'priority', 'cost')
  if t[1] == 'queued' then
    leave(q, id, t[2], t[3], number(t[4]))
    cancelled(q, id)
    return 1
  elseif t[1] == 'leased' then
    redis.call('HSET', key(q, 'task', id), 'cancel', 1)
    return 1
  end
  return 0
end

-- The line whose head has waited longest, over the tenants whose turn is nearest.
local function oldest(q)
  local first = redis.call('ZRANGE', key(q, 'suspects'), 0, 0, 'WITHSCORES')[2]
  first = first and tonumber(first) or math.huge
  for _, class in ipairs(PRIORITIES) do
    for _, tenant in ipairs(redis.call('ZRANGE', key(q, 'ring', class), 0, 999)) do
      local head = redis.call('ZRANGE', line_key(q, class, tenant), 0, 0, 'WITHSCORES')[2]
      first = math.min(first, head and tonumber(head) or math.huge)
    end
  end
  if first == math.huge then
    return 0
  end
  return math.max(0, math.floor((q.us - first) / 1000))
end

-- Returns waiting, leased, dead, waiting tokens, age of the oldest waiting task in ms.
local function depth(keys, args)
  local q = open(keys, args)
  sweep(q)
  return {
    (waiting(q)),
    redis.call('ZCARD', key(q, 'leases')),
    redis.call('ZCARD', key(q, 'dead')),
    number(redis.call('HGET', key(q, 'meta'), 'tokens')),
    oldest(q),
  }
end

-- Returns how many workers were heard of within one lease.
local function workers(keys, args)
  local q = open(keys, args)
  return redis.call('ZCOUNT', key(q, 'workers'), '(' .. string.format('%.0f', q.now - q.lease_ms), '+inf')
end
