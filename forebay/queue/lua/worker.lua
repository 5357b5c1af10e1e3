-- The worker's side: claim, heartbeat, finish, release, reap, append.

local function seen(q, worker)
  redis.call('ZADD', key(q, 'workers'), q.now, worker)
  -- Past this the leases themselves have long run out, so nothing is forgotten with it.
  redis.call('PEXPIRE', key(q, 'workers'), 10 * q.lease_ms)
  redis.call('PEXPIRE', key(q, 'held', worker), 10 * q.lease_ms)
end

-- The last one is what is left until the deadline, in ms; negative: there is none.
local function describe_lease(q, id)
  local t = read(q, id, 'fence', 'deliveries', 'cost', 'request', 'priority', 'deadline')
  local deadline = number(t[6])
  local left = deadline > 0 and math.max(0, deadline - q.now) or -1
  return { id, tonumber(t[1]), tonumber(t[2]), tonumber(t[3]), t[4], t[5], left }
end

local function lease(q, id, worker, alone)
  local task = key(q, 'task', id)
  local t = read(q, id, 'tenant', 'priority', 'cost')
  leave(q, id, t[1], t[2], number(t[3]))
  local fence = redis.call('HINCRBY', task, 'fence', 1)
  redis.call('HINCRBY', task, 'deliveries', 1)
  redis.call('HSET', task, 'state', 'leased', 'leased', q.now, 'worker', worker)
  redis.call('ZADD', key(q, 'leases'), q.now + q.lease_ms, id)
  redis.call('SADD', key(q, 'held', worker), id)
  if alone then
    redis.call('SADD', key(q, 'solo'), id)
  end
  if fence > 1 then
    -- What was said before belongs to a delivery that came to nothing: readers start over.
    local entry = say(q, id, 'k', 'restart')
    redis.call('XTRIM', key(q, 'stream', id), 'MINID', entry)
  end
  return describe_lease(q, id)
end

-- The task whose turn it is: by class, then by the tenants' virtual time, then by arrival.
local function head(q)
  for _, class in ipairs(PRIORITIES) do
    local ring = key(q, 'ring', class)
    while true do
      local turn = redis.call('ZRANGE', ring, 0, 0, 'WITHSCORES')
      if #turn == 0 then
        break
      end
      local id = redis.call('ZRANGE', line_key(q, class, turn[1]), 0, 0)[1]
      if id then
        return id, class, turn[1], tonumber(turn[2])
      end
      redis.call('ZREM', ring, turn[1])
    end
  end
  return nil
end

-- A task whose hash someone deleted by hand must not stop the line for ever.
local function forget(q, id, class, tenant)
  redis.call('ZREM', line_key(q, class, tenant), id)
  redis.call('ZREM', key(q, 'deadlines'), id)
  redis.call('HINCRBY', key(q, 'meta'), 'waiting:' .. class, -1)
end

local function claim_in_turn(q, worker, limit, free, idle)
  local leases = {}
  while #leases < limit do
    local id, class, tenant, tag = head(q)
    if not id then
      break
    end
    local cost = tonumber(read(q, id, 'cost')[1])
    if not cost then
      forget(q, id, class, tenant)
    elseif cost > free and not (idle and #leases == 0) then
      -- The head waits for room rather than being overtaken: large tasks must not starve.
      break
    else
      leases[#leases + 1] = lease(q, id, worker, false)
      free = free - cost
      redis.call('HSET', key(q, 'meta'), 'clock:' .. class, tag)
      redis.call('ZADD', key(q, 'ring', class), tag + math.max(cost, 1), tenant)
    end
  end
  return leases
end

-- Leases that a claim with this nonce gave out already: its reply was lost on the way.
local function claimed_before(q, worker, nonce)
  if redis.call('GET', key(q, 'claim', worker)) ~= nonce then
    return nil
  end
  local leases = {}
  for _, id in ipairs(redis.call('SMEMBERS', key(q, 'held', worker))) do
    if read(q, id, 'nonce')[1] == nonce then
      leases[#leases + 1] = describe_lease(q, id)
    end
  end
  return leases
end

-- What a worker holds, without tasks whose hash someone deleted by hand: with one of those it
-- would never again count as idle.
local function holding(q, worker)
  local held = {}
  for _, id in ipairs(redis.call('SMEMBERS', key(q, 'held', worker))) do
    if redis.call('EXISTS', key(q, 'task', id)) == 1 then
      held[#held + 1] = id
    else
      unlease(q, id, worker)
    end
  end
  return held
end

local function choose(q, worker, limit, free)
  local held = holding(q, worker)
  local solo = key(q, 'solo')
  if #held == 1 and redis.call('SISMEMBER', solo, held[1]) == 1 then
    return {} -- a suspect runs alone
  end
  local first = redis.call('ZRANGE', key(q, 'suspects'), 0, 0)[1]
  if first and not read(q, first, 'state')[1] then
    redis.call('ZREM', key(q, 'suspects'), first)
    first = nil
  end
  if first and #held == 0 and limit > 0 then
    return { lease(q, first, worker, true) }
  end
  if first and redis.call('SCARD', solo) == 0 then
    return {} -- run empty, so that the suspect comes next; otherwise it could wait for ever
  end
  return claim_in_turn(q, worker, limit, free, #held == 0)
end

-- args: worker, limit, free tokens, nonce. Returns what describe_lease says of each.
local function claim(keys, args)
  local q = open(keys, args)
  local worker, limit, free, nonce = unpack(args, ARGS + 1)
  sweep(q)
  local again = claimed_before(q, worker, nonce)
  if again then
    return again
  end
  local leases = choose(q, worker, number(limit), number(free))
  for _, given in ipairs(leases) do
    redis.call('HSET', key(q, 'task', given[1]), 'nonce', nonce)
  end
  if #leases > 0 then
    redis.call('SET', key(q, 'claim', worker), nonce, 'PX', 10 * q.lease_ms)
  end
  seen(q, worker)
  return leases
end

local function is_held(q, id, fence)
  local t = read(q, id, 'state', 'fence', 'cancel')
  return t[1] == 'leased' and t[2] == fence, t
end

-- args: worker, '1' when it can answer, then id, fence of each lease. Returns {lost ids, cancelled
-- ids}. A worker that cannot answer keeps its leases, and is not counted among those that serve.
local function heartbeat(keys, args)
  local q = open(keys, args)
  local gone, stop = {}, {}
  for i = ARGS + 3, #args, 2 do
    local held, t = is_held(q, args[i], args[i + 1])
    if held then
      redis.call('ZADD', key(q, 'leases'), q.now + q.lease_ms, args[i])
      if t[3] then
        stop[#stop + 1] = args[i]
      end
    else
      gone[#gone + 1] = args[i]
    end
  end
  seen(q, args[ARGS + 1])
  if args[ARGS + 2] ~= '1' then
    redis.call('ZREM', key(q, 'workers'), args[ARGS + 1])
  end
  sweep(q)
  return { gone, stop }
end

local ENDS = { cancelled = 'cancelled', expired = 'expired' }

-- Empty where it is for almost every task: log-probabilities, answers after the first.
local function with_more(fields, name, more)
  if more ~= '' then
    fields[#fields + 1] = name
    fields[#fields + 1] = more
  end
  return fields
end

local function store(q, id, text, reason, usage, code, message, more)
  unlease(q, id, read(q, id, 'worker')[1])
  if code ~= '' then
    close_error(q, id, ENDS[code] or 'failed', code, message)
  else
    close(
      q, id, 'finished',
      with_more({ 'text', text, 'reason', reason, 'usage', usage }, 'more', more),
      { 'k', 'done', 'reason', reason, 'usage', usage }
    )
  end
end

-- args: id, fence, text, reason, usage, code, message, more of each outcome. Returns the stored ids;
-- an outcome that this very delivery has stored before counts as stored, so a retry is safe.
local function finish(keys, args)
  local q = open(keys, args)
  local stored = {}
  for i = ARGS + 1, #args, 8 do
    local id, fence = args[i], args[i + 1]
    local held, t = is_held(q, id, fence)
    if held then
      store(q, id, unpack(args, i + 2, i + 7))
    end
    if held or (t[1] and t[2] == fence and t[1] ~= 'queued') then
      stored[#stored + 1] = id
    end
  end
  return stored
end

local function give_back(q, id)
  local t = read(q, id, 'worker', 'cancel', 'tenant', 'priority', 'seq', 'cost', 'deadline')
  local alone = redis.call('SISMEMBER', key(q, 'solo'), id) == 1
  unlease(q, id, t[1])
  redis.call('HINCRBY', key(q, 'task', id), 'fence', 1)
  redis.call('HINCRBY', key(q, 'task', id), 'deliveries', -1)
  local deadline = number(t[7])
  if t[2] then
    cancelled(q, id)
    return
  elseif deadline > 0 and deadline <= q.now then
    expired(q, id)
    return
  end
  redis.call('HSET', key(q, 'task', id), 'state', 'queued')
  if alone then
    suspect(q, id, t[5], number(t[6]), deadline)
  else
    join(q, id, t[3], t[4], t[5], number(t[6]))
    if deadline > 0 then
      redis.call('ZADD', key(q, 'deadlines'), deadline, id)
    end
  end
end

-- args: id, fence of each lease. Returns the ids given back; each takes its old place in its line.
local function release(keys, args)
  local q = open(keys, args)
  local released = {}
  for i = ARGS + 1, #args, 2 do
    if is_held(q, args[i], args[i + 1]) then
      give_back(q, args[i])
      released[#released + 1] = args[i]
    end
  end
  if #released > 0 then
    wake(q)
  end
  return released
end

-- args: why, then id, fence of each lease whose delivery came to nothing. Returns the ids given
-- back; each is treated as by an expired lease, at once.
local function redeliver(keys, args)
  local q = open(keys, args)
  local returned = {}
  for i = ARGS + 2, #args, 2 do
    if is_held(q, args[i], args[i + 1]) and lost(q, args[i], args[ARGS + 1]) then
      returned[#returned + 1] = args[i]
    end
  end
  return returned
end

-- args: worker. Returns the ids that a worker known to be dead held; each is treated as by an
-- expired lease, at once.
local function reap(keys, args)
  local q = open(keys, args)
  local worker = args[ARGS + 1]
  local reaped = {}
  for _, id in ipairs(redis.call('SMEMBERS', key(q, 'held', worker))) do
    if lost(q, id) then
      reaped[#reaped + 1] = id
    end
  end
  redis.call('ZREM', key(q, 'workers'), worker)
  redis.call('DEL', key(q, 'held', worker), key(q, 'claim', worker))
  return reaped
end

-- args: nonce, then id, fence, text, tokens, more of each write. Returns the ids with a stale fence. A
-- write that this nonce made before is not made twice, so a retry is safe.
local function append(keys, args)
  local q = open(keys, args)
  local nonce = args[ARGS + 1]
  local stale = {}
  for i = ARGS + 2, #args, 5 do
    local id = args[i]
    local t = read(q, id, 'state', 'fence', 'append')
    if t[1] ~= 'leased' or t[2] ~= args[i + 1] then
      stale[#stale + 1] = id
    elseif t[3] ~= nonce then
      redis.call('HSET', key(q, 'task', id), 'append', nonce)
      local entry = { 'k', 'delta', 't', args[i + 2], 'n', args[i + 3] }
      say(q, id, unpack(with_more(entry, 'm', args[i + 4])))
    end
  end
  return stale
end
