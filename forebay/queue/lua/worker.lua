-- The worker's side: claim, heartbeat, finish, release, reap, append.

-- Leases, past which those of a worker have long run out: nothing is forgotten with what it held.
local FORGOTTEN_AFTER = 10

local function seen(q, worker)
  local group = key(q, q.group == CANARY and 'canaries' or 'workers')
  redis.call('ZADD', group, q.now, worker)
  redis.call('PEXPIRE', group, FORGOTTEN_AFTER * q.lease_ms)
  redis.call('PEXPIRE', key(q, 'held', worker), FORGOTTEN_AFTER * q.lease_ms)
end

-- A worker that is gone, or cannot answer, is not counted among those that serve.
local function unseen(q, worker)
  for _, index in ipairs({ 'workers', 'canaries', 'canary_room' }) do
    redis.call('ZREM', key(q, index), worker)
  end
end

-- Add a lease to those that a claim gives out: its numbers as one text. After what is left until the
-- deadline, in ms (negative: there is none), how long ago the task arrived, and since when it waited
-- for this lease: not before it came back from another worker.
local function tell_lease(q, given, id, t)
  local left = t.deadline > 0 and math.max(0, t.deadline - q.now) or -1
  local age = math.max(0, q.now - math.floor(t.seq / 1000))
  local waited = t.returned and math.min(age, math.max(0, q.now - tonumber(t.returned))) or age
  local numbers = { id, t.fence, t.deliveries, t.cost, t.priority, left, age, waited }
  given.ids[#given.ids + 1] = id
  given.numbers[#given.ids] = table.concat(numbers, ' ')
end

-- Add the numbers of each lease and its request to a reply: a client reads two values in a fraction
-- of the time of seven.
local function tell_requests(q, reply, given)
  for first = 1, #given.ids, AT_ONCE do
    local bodies = {}
    for i = first, math.min(first + AT_ONCE - 1, #given.ids) do
      bodies[#bodies + 1] = key(q, 'body', given.ids[i])
    end
    for i, request in ipairs(redis.call('MGET', unpack(bodies))) do
      reply[#reply + 1] = given.numbers[first + i - 1]
      reply[#reply + 1] = request or ''
    end
  end
end

-- Lease a task that has left where it waited.
local function lease(q, id, t, worker, alone)
  tick(q)
  step(t, 'leased')
  if t.fence == 0 then
    waited(q, t)
  end
  t.fence, t.deliveries = t.fence + 1, t.deliveries + 1
  redis.call(
    'HSET', key(q, 'task', id), 'state', t.state, 'leased', q.wall, 'worker', worker,
    'fence', t.fence, 'deliveries', t.deliveries
  )
  given_to_group(q, id, t, alone)
  local leased = q.leased[worker] or {}
  q.leased[worker] = leased
  leased[#leased + 1] = id
  bump(q, 'leases', 1)
  bump(q, 'running', t.cost)
  if alone then
    redis.call('SADD', key(q, 'solo'), id)
    q.solos = solos(q) + 1
  end
  if t.fence > 1 then
    -- What was said before belongs to a delivery that came to nothing: readers start over.
    local entry = say(q, id, q.stream_ttl_ms, 'k', 'restart')
    redis.call('XTRIM', key(q, 'stream', id), 'MINID', entry)
  end
end

ON_FLUSH[#ON_FLUSH + 1] = function(q)
  for worker, ids in pairs(q.leased) do
    local leases = {}
    for i, id in ipairs(ids) do
      leases[2 * i - 1] = q.now + q.lease_ms
      leases[2 * i] = id
    end
    in_parts(leases, 2, 'ZADD', key(q, 'leases'))
    in_parts(ids, 1, 'SADD', key(q, 'held', worker))
    redis.call('PEXPIRE', key(q, 'held', worker), FORGOTTEN_AFTER * q.lease_ms)
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
      deleted(q, id)
    end
  end
  return held
end

local function claim_in_turn(q, given, worker, limit, free, share)
  local heads = {}
  while #given.ids < limit do
    local one, credit = next_in_turn(q, heads, share)
    if not one or not may_take(q, one.t) then
      q.wants = free > 0
      break
    end
    if one.t.cost > free and not (#given.ids == 0 and #holding(q, worker) == 0) then
      -- The head waits for room rather than being overtaken: large tasks must not starve.
      break
    end
    take(q, one)
    lease(q, one.id, one.t, worker, false)
    tell_lease(q, given, one.id, one.t)
    free = free - one.t.cost
    bump(q, 'credit', credit)
    heads[one.level] = nil
  end
  if q.group == STABLE or stands_in(q) then
    put(q, 'hungry', #given.ids < limit and free > 0 and count(q, 'tasks') == 0 and 1 or 0)
  end
end

-- What a worker may be given beside what it holds. A suspect runs alone, and waits for a worker that
-- holds nothing.
local COMPANY = { any = 0, run_empty = 1, none = 2 }

-- Tell leases that a claim with this nonce gave out already: its reply was lost on the way.
-- What it gave out and the worker still holds: a worker has no later claim while it repeats one.
local function claimed_before(q, given, worker, nonce)
  local said = redis.call('GET', key(q, 'claim', worker))
  if not said or string.sub(said, 1, #nonce + 1) ~= nonce .. ' ' then
    return false
  end
  for id in string.gmatch(string.sub(said, #nonce + 2), '%S+') do
    if redis.call('SISMEMBER', key(q, 'held', worker), id) == 1 then
      tell_lease(q, given, id, load(q, id))
      if redis.call('SISMEMBER', key(q, 'solo'), id) == 1 then
        q.company = COMPANY.none
      end
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

local function choose(q, given, worker, limit, free, share)
  if count(q, 'drained') == 1 or limit < 1 then
    return
  end
  local id, t
  if q.group == STABLE or stands_in(q) then
    id, t = first_suspect(q)
  end
  if id or solos(q) > 0 then
    local held = holding(q, worker)
    if #held == 1 and redis.call('SISMEMBER', key(q, 'solo'), held[1]) == 1 then
      q.company = COMPANY.none
      return -- a suspect runs alone
    elseif id and #held + q.elsewhere == 0 then
      q.company = COMPANY.none
      leave(q, id, t)
      lease(q, id, t, worker, true)
      tell_lease(q, given, id, t)
      return
    elseif id and solos(q) == 0 then
      q.company = COMPANY.run_empty -- the suspect comes next; otherwise it could wait for ever
      return
    end
  end
  claim_in_turn(q, given, worker, limit, free, share)
end

-- Ms until the next delayed task is due; -1: there is none.
local function next_due(q)
  local score = redis.call('ZRANGE', key(q, 'delayed'), 0, 0, 'WITHSCORES')[2]
  return score and math.max(0, math.ceil(tonumber(score) - q.now)) or -1
end

-- args: worker, limit, free tokens, nonce, share of the tokens for the less urgent, how many tasks
-- of other queues the worker holds, its group. Returns the ms until a delayed task is due, what may come beside
-- what it holds now, and what tell_lease says of each lease.
local function claim(q, args)
  local worker, limit, free, nonce, share, elsewhere, group = unpack(args, ARGS + 1)
  q.elsewhere, q.company, q.group = number(elsewhere), COMPANY.any, group
  sweep(q)
  local reply, given = { -1, COMPANY.any }, { ids = {}, numbers = {} }
  if not claimed_before(q, given, worker, nonce) then
    choose(q, given, worker, number(limit), number(free), number(share))
    if #given.ids > 0 then
      local said = nonce .. ' ' .. table.concat(given.ids, ' ')
      redis.call('SET', key(q, 'claim', worker), said, 'PX', 10 * q.lease_ms)
    end
    reply[1] = next_due(q)
    seen(q, worker)
  end
  if #given.ids == 0 then
    put(q, 'awake', 0) -- the worker will wait for a hint
  end
  groups_claimed(q, worker, #given.ids, q.wants)
  reply[2] = q.company
  tell_requests(q, reply, given)
  return reply
end

-- args: worker, '1' when it can answer, its group, then id, fence of each lease. Returns {lost ids,
-- cancelled ids}. A worker that cannot answer keeps its leases, and is not counted among those that serve.
local function heartbeat(q, args)
  local gone, stop, kept = {}, {}, {}
  q.group = args[ARGS + 3]
  for i = ARGS + 4, #args, 2 do
    local t = redis.call('HMGET', key(q, 'task', args[i]), 'state', 'fence', 'cancel')
    if HELD[t[1]] and t[2] == args[i + 1] then
      redis.call('ZADD', key(q, 'leases'), q.now + q.lease_ms, args[i])
      kept[#kept + 1] = args[i]
      if t[3] then
        stop[#stop + 1] = args[i]
      end
    else
      gone[#gone + 1] = args[i]
    end
  end
  local held = key(q, 'held', args[ARGS + 1])
  if #kept > 0 and redis.call('EXISTS', held) == 0 then
    redis.call('SADD', held, unpack(kept)) -- it has expired: the server was away for long
  end
  seen(q, args[ARGS + 1])
  if args[ARGS + 2] ~= '1' then
    unseen(q, args[ARGS + 1])
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
  if not ENDS[code] then
    count_end(q, id, t, code ~= '' and 'failed' or text == '' and 'empty' or 'answered')
  end
  if t.group == CANARY and code ~= '' and not ENDS[code] then
    unlease(q, id, t, t.worker) -- whose fault it was is seen when a stable worker has tried
    spare(q, id, t, code)
    return
  end
  unlease_ended(q, id, t)
  bump(q, 'ended', 1)
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
  requeue(q, id, t, t.deliveries - 1, 'released')
  if t.group == CANARY then
    redis.call('HDEL', key(q, 'task', id), 'group') -- nothing has gone wrong: anyone may have it
  end
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
  unseen(q, worker)
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
