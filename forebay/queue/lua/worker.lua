-- The worker's side: claim, heartbeat, finish, release, reap, append.

local function seen(q, worker)
  redis.call('ZADD', key(q, 'workers'), q.now, worker)
  -- Past this the leases themselves have long run out, so nothing is forgotten with it.
  redis.call('PEXPIRE', key(q, 'workers'), 10 * q.lease_ms)
  redis.call('PEXPIRE', key(q, 'held', worker), 10 * q.lease_ms)
end

-- Add a lease to a reply: its numbers as one text and the request, for a client reads two values in
-- a fraction of the time of seven. The last number is what is left until the deadline, in ms;
-- negative: there is none.
local function tell_lease(q, reply, id, t)
  local left = t.deadline > 0 and math.max(0, t.deadline - q.now) or -1
  local numbers = { id, t.fence, t.deliveries, t.cost, t.priority, left }
  reply[#reply + 1] = table.concat(numbers, ' ')
  reply[#reply + 1] = redis.call('GET', key(q, 'body', id)) or ''
end

local function lease(q, id, t, worker, nonce, alone)
  tick(q)
  leave(q, id, t)
  step(t, 'leased')
  if t.fence == 0 then
    waited(q, t)
  end
  t.fence, t.deliveries = t.fence + 1, t.deliveries + 1
  redis.call(
    'HSET', key(q, 'task', id), 'state', t.state, 'leased', q.wall, 'worker', worker,
    'nonce', nonce, 'fence', t.fence, 'deliveries', t.deliveries
  )
  redis.call('ZADD', key(q, 'leases'), q.now + q.lease_ms, id)
  redis.call('SADD', key(q, 'held', worker), id)
  bump(q, 'leases', 1)
  bump(q, 'running', t.cost)
  if alone then
    redis.call('SADD', key(q, 'solo'), id)
  end
  if t.fence > 1 then
    -- What was said before belongs to a delivery that came to nothing: readers start over.
    local entry = say(q, id, q.stream_ttl_ms, 'k', 'restart')
    redis.call('XTRIM', key(q, 'stream', id), 'MINID', entry)
  end
end

-- The task at the head of a level: the first in the line of the tenant whose turn it is.
local function head(q, level)
  local ring = key(q, 'ring', level)
  while true do
    local turn = redis.call('ZRANGE', ring, 0, 0, 'WITHSCORES')
    if #turn == 0 then
      return nil
    end
    local tenant = turn[1]
    local id = redis.call('ZRANGE', line_key(q, level, tenant), 0, 0)[1]
    if not id then
      redis.call('ZREM', ring, tenant)
    else
      local t = load(q, id)
      if t.state then
        return { id = id, t = t, level = level, tag = tonumber(turn[2]) }
      end
      forget(q, id, level, tenant)
    end
  end
end

-- The task whose turn it is, and what serving it adds to the credit of the less urgent levels. While
-- they wait, each task that goes first earns them `share` of its cost; what is earned serves, of
-- their heads, the one that came first.
local function next_in_turn(q, heads, share)
  local urgent, patient
  for level = 0, LEVELS - 1 do
    if count(q, 'waiting:' .. level) > 0 then
      heads[level] = heads[level] or head(q, level)
      local here = heads[level]
      if not urgent then
        urgent = here
      elseif here and share > 0 and (not patient or here.t.seq < patient.t.seq) then
        patient = here
      end
    end
  end
  if not patient then
    return urgent, 0
  elseif count(q, 'credit') >= patient.t.cost then
    return patient, -patient.t.cost
  end
  return urgent, share * urgent.t.cost
end

-- The tenant's next turn comes after as many tokens as it has had now, by its weight.
local function charge(q, one)
  put(q, 'clock:' .. one.level, one.tag)
  if count(q, 'waiting:' .. one.level) > 0 then
    local tag = one.tag + math.max(one.t.cost, 1) / one.t.weight
    redis.call('ZADD', key(q, 'ring', one.level), tag, one.t.tenant)
  end
end

-- What a worker holds, without tasks whose hash someone deleted by hand: with one of those it
-- would never again count as idle.
local function holding(q, worker)
  local held = {}
  for _, id in ipairs(redis.call('SMEMBERS', key(q, 'held', worker))) do
    if redis.call('EXISTS', key(q, 'task', id)) == 1 then
      held[#held + 1] = id
    else
      unlease(q, id, nil, worker)
      redis.call('DEL', key(q, 'body', id))
    end
  end
  return held
end

local function claim_in_turn(q, reply, worker, limit, free, nonce, share)
  local given, heads = 0, {}
  while given < limit do
    local one, credit = next_in_turn(q, heads, share)
    if not one then
      break
    end
    if one.t.cost > free and not (given == 0 and #holding(q, worker) == 0) then
      -- The head waits for room rather than being overtaken: large tasks must not starve.
      break
    end
    lease(q, one.id, one.t, worker, nonce, false)
    tell_lease(q, reply, one.id, one.t)
    given = given + 1
    free = free - one.t.cost
    bump(q, 'credit', credit)
    charge(q, one)
    heads[one.level] = nil
  end
  put(q, 'hungry', given < limit and free > 0 and count(q, 'tasks') == 0 and 1 or 0)
end

-- Tell leases that a claim with this nonce gave out already: its reply was lost on the way.
local function claimed_before(q, reply, worker, nonce)
  if redis.call('GET', key(q, 'claim', worker)) ~= nonce then
    return false
  end
  for _, id in ipairs(redis.call('SMEMBERS', key(q, 'held', worker))) do
    if redis.call('HGET', key(q, 'task', id), 'nonce') == nonce then
      tell_lease(q, reply, id, load(q, id))
    end
  end
  return true
end

local function first_suspect(q)
  local id = redis.call('ZRANGE', key(q, 'suspects'), 0, 0)[1]
  if not id then
    return nil
  end
  local t = load(q, id)
  if t.state then
    return id, t
  end
  redis.call('ZREM', key(q, 'suspects'), id)
  forget(q, id)
  return nil
end

local function choose(q, reply, worker, limit, free, nonce, share)
  if count(q, 'drained') == 1 or limit < 1 then
    return
  end
  local id, t = first_suspect(q)
  local solos = redis.call('SCARD', key(q, 'solo'))
  if id or solos > 0 then
    local held = holding(q, worker)
    if #held == 1 and redis.call('SISMEMBER', key(q, 'solo'), held[1]) == 1 then
      return -- a suspect runs alone
    elseif id and #held == 0 then
      lease(q, id, t, worker, nonce, true)
      tell_lease(q, reply, id, t)
      return
    elseif id and solos == 0 then
      return -- run empty, so that the suspect comes next; otherwise it could wait for ever
    end
  end
  claim_in_turn(q, reply, worker, limit, free, nonce, share)
end

-- Ms until the next delayed task is due; -1: there is none.
local function next_due(q)
  local score = redis.call('ZRANGE', key(q, 'delayed'), 0, 0, 'WITHSCORES')[2]
  return score and math.max(0, math.ceil(tonumber(score) - q.now)) or -1
end

-- args: worker, limit, free tokens, nonce, share of the tokens for the less urgent. Returns the ms
-- until a delayed task is due, and what tell_lease says of each lease.
local function claim(q, args)
  local worker, limit, free, nonce, share = unpack(args, ARGS + 1)
  sweep(q)
  local reply = { -1 }
  if claimed_before(q, reply, worker, nonce) then
    return reply
  end
  choose(q, reply, worker, number(limit), number(free), nonce, number(share))
  if #reply > 1 then
    redis.call('SET', key(q, 'claim', worker), nonce, 'PX', 10 * q.lease_ms)
  end
  reply[1] = next_due(q)
  seen(q, worker)
  return reply
end

-- args: worker, '1' when it can answer, then id, fence of each lease. Returns {lost ids, cancelled
-- ids}. A worker that cannot answer keeps its leases, and is not counted among those that serve.
local function heartbeat(q, args)
  local gone, stop = {}, {}
  for i = ARGS + 3, #args, 2 do
    local t = redis.call('HMGET', key(q, 'task', args[i]), 'state', 'fence', 'cancel')
    if HELD[t[1]] and t[2] == args[i + 1] then
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
  tidy(q)
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

local function store(q, id, t, text, reason, usage, code, message, more)
  unlease(q, id, t, t.worker)
  if code ~= '' then
    close_error(q, id, t, ENDS[code] or 'failed', code, message)
    return
  end
  bump(q, 'work', t.cost)
  close(
    q, id, t, 'finished',
    with_more({ 'reason', reason, 'usage', usage }, 'more', more),
    { 'k', 'done', 'reason', reason, 'usage', usage },
    text
  )
end

local function is_held(t, fence)
  return HELD[t.state] and t.fence == tonumber(fence)
end

-- args: id, fence, text, reason, usage, code, message, more of each outcome. Returns the stored ids;
-- an outcome that this very delivery has stored before counts as stored, so a retry is safe.
local function finish(q, args)
  local stored = {}
  for i = ARGS + 1, #args, 8 do
    local id = args[i]
    local t = load(q, id)
    local fenced = t.state and t.fence == tonumber(args[i + 1])
    if fenced and t.state ~= 'queued' then
      if HELD[t.state] then
        store(q, id, t, unpack(args, i + 2, i + 7))
      end
      stored[#stored + 1] = id
    end
  end
  return stored
end

local function give_back(q, id, t)
  local alone = redis.call('SISMEMBER', key(q, 'solo'), id) == 1
  unlease(q, id, t, t.worker)
  if ends_here(q, id, t) then
    redis.call('HSET', key(q, 'task', id), 'deliveries', t.deliveries - 1)
    return
  end
  requeue(q, id, t, t.deliveries - 1)
  if alone then
    suspect(q, id, t)
  else
    join(q, id, t)
  end
end

-- args: id, fence of each lease. Returns the ids given back; each takes its old place in its line.
local function release(q, args)
  local released = {}
  for i = ARGS + 1, #args, 2 do
    local t = load(q, args[i])
    if is_held(t, args[i + 1]) then
      give_back(q, args[i], t)
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
local function redeliver(q, args)
  local returned = {}
  for i = ARGS + 2, #args, 2 do
    if is_held(load(q, args[i]), args[i + 1]) and lost(q, args[i], args[ARGS + 1]) then
      returned[#returned + 1] = args[i]
    end
  end
  return returned
end

-- args: worker. Returns the ids that a worker known to be dead held; each is treated as by an
-- expired lease, at once.
local function reap(q, args)
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

-- How far the engine is: `phases` as 'prefill:120,decode:0', each with the ms since it began.
local function progress(q, state, phases, fields)
  local t = { state = state }
  for phase, ago in string.gmatch(phases, '(%a+):(%d+)') do
    step(t, phase)
    fields[#fields + 1] = phase
    fields[#fields + 1] = q.wall - tonumber(ago)
  end
  fields[#fields + 1] = 'state'
  fields[#fields + 1] = t.state
end

-- args: nonce, then id, fence, text, tokens, more, phases of each write. Returns the ids with a stale
-- fence. A write that this nonce made before is not made twice, so a retry is safe.
local function append(q, args)
  local nonce = args[ARGS + 1]
  local stale = {}
  for i = ARGS + 2, #args, 6 do
    local id, fence, text, tokens, more, phases = unpack(args, i, i + 5)
    local t = redis.call('HMGET', key(q, 'task', id), 'state', 'fence', 'append')
    if not HELD[t[1]] or t[2] ~= fence then
      stale[#stale + 1] = id
    elseif t[3] ~= nonce then
      local fields = { 'append', nonce }
      if phases ~= '' then
        progress(q, t[1], phases, fields)
      end
      redis.call('HSET', key(q, 'task', id), unpack(fields))
      if text ~= '' or tokens ~= '0' or more ~= '' then
        local entry = { 'k', 'delta', 't', text, 'n', tokens }
        say(q, id, q.stream_ttl_ms, unpack(with_more(entry, 'm', more)))
      end
    end
  end
  return stale
end
