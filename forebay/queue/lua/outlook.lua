-- What a waiting task may expect: its place, the time until its turn, when to come again.

local LEAST_RETRY_MS, LONGEST_RETRY_MS = 1000, 600000

-- Ms until a task with so many ahead of it is expected to start; -1: nobody can tell.
local function eta(q, ahead)
  local speed = rate(q)
  if not speed or count(q, 'drained') == 1 then
    return -1
  end
  if ahead == 0 and count(q, 'hungry') == 1 then
    return 0 -- the last claim found room and nothing to fill it with
  end
  local cost = count(q, 'tasks') > 0 and count(q, 'tokens') / count(q, 'tasks') or 0
  return math.floor((ahead * cost + count(q, 'running') / 2) / speed)
end

-- Ms until `tokens` of waiting cost have been worked off, by a share of the queue's rate.
local function drained_in(q, tokens, share, otherwise_ms)
  local speed = rate(q)
  local ms = speed and tokens / (speed * share) or otherwise_ms
  return math.floor(math.min(LONGEST_RETRY_MS, math.max(LEAST_RETRY_MS, ms)))
end

-- Tasks ahead of the one at a place of its line, as an estimate that costs O(log n): suspects and
-- more urgent levels whole, and of the own level what a fair turn for every tenant lets pass, at most
-- all of it.
local function ahead_of(q, t, rank)
  local ahead, all = 0, count(q, 'waiting:' .. t.priority)
  if all < count(q, 'tasks') then -- some wait elsewhere
    look_up(q, WAITING_ALL)
    for level = 0, tonumber(t.priority) - 1 do
      ahead = ahead + count(q, WAITING[level])
    end
    ahead = ahead + redis.call('ZCARD', key(q, 'suspects'))
  end
  if rank > 0 and rank < all - 1 then
    rank = math.min(all - 1, rank * redis.call('ZCARD', key(q, 'ring', t.priority)))
  end
  return ahead + rank
end

local function position(q, id, t)
  local line = line_key(q, t.priority, t.tenant)
  local rank = redis.call('ZRANK', line, id)
  if not rank then
    local place = redis.call('ZRANK', key(q, 'suspects'), id)
    if place then
      return place
    end
    rank = redis.call('ZCARD', line) -- its delay is not over: it would be the last one now
  end
  return ahead_of(q, t, rank)
end

-- The same for a task that has just joined its line: it is the last there.
local function position_of_last(q, t)
  local others = count(q, 'waiting:' .. t.priority) - 1
  local line = others > 0 and redis.call('ZCARD', line_key(q, t.priority, t.tenant)) or 1
  return ahead_of(q, t, line - 1)
end

-- Tasks ahead and ms until the start; both -1 unless it waits. A follower waits as its leader does.
local function outlook(q, id, t)
  if t.state ~= 'queued' then
    return -1, -1
  elseif t.leader then
    id, t = t.leader, load(q, t.leader)
    if t.state ~= 'queued' then
      return 0, 0
    end
  end
  local ahead = position(q, id, t)
  local ms = eta(q, ahead)
  local delay = redis.call('ZSCORE', key(q, 'delayed'), id)
  if ms >= 0 and delay then
    ms = math.max(ms, tonumber(delay) - q.now)
  end
  return ahead, ms
end

-- The reply for a task that the queue has: it is fresh for the caller who brought it.
local function known(q, id, t, fresh)
  local ahead, ms = outlook(q, id, t)
  return { 'ok', id, ahead, ms, fresh and 1 or 0, t.reuse or '' }
end
