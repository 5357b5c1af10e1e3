-- Two groups of workers: the stable ones, and canaries, which run something new on a share of the
-- tasks. Nothing is set aside for a canary: it takes what is next, whenever that is its turn. So no
-- task waits for one that is gone or slow, and order, turns and caps are what they are without it.
-- In meta: canary_share (0 to 1), canary_due (tasks that canaries may yet take of those that were
-- given out), canary_trial (rises with every change of the share, and of what canaries run).

local STABLE, CANARY = 'stable', 'canary'
-- A task's group: CANARY in a canary's hands; STABLE once one has lost it or failed at it, and only
-- a stable worker may have it then. Most tasks have none.
FIELDS[#FIELDS + 1] = 'group'

local MOST_OWED = 32 -- turns that canaries missed and may still take; older ones are forgotten
local ALMOST = 1 - 1e-9 -- shares add up with rounding

-- Workers of a group that were heard of within one lease.
local function heard_of(q, group)
  if not q.heard[group] then
    local after = '(' .. string.format('%.0f', q.now - q.lease_ms)
    q.heard[group] = redis.call('ZCOUNT', key(q, group == CANARY and 'canaries' or 'workers'), after, '+inf')
  end
  return q.heard[group]
end

-- Whether a canary does a stable worker's work: it has every task, and no stable worker is there.
local function stands_in(q)
  return q.group == CANARY and count(q, 'canary_share') >= 1 and heard_of(q, STABLE) == 0
end

local function canarys_turn(q)
  return count(q, 'canary_due') + count(q, 'canary_share') >= ALMOST
end

-- Whether a canary waits for its turn, as one of its last claims said.
local function canary_waits(q)
  if q.canary_waits == nil then
    local now = '(' .. string.format('%.0f', q.now)
    q.canary_waits = redis.call('ZCOUNT', key(q, 'canary_room'), now, '+inf') > 0
  end
  return q.canary_waits
end

-- Whether who claims may take the task that is next. A stable worker leaves it to a canary that waits
-- for just this turn, and all of them where the share is 1; a canary that is full misses its turn.
local function may_take(q, t)
  local share = count(q, 'canary_share')
  if q.group == CANARY then
    if t.group == STABLE then
      return stands_in(q)
    end
    return share > 0 and canarys_turn(q)
  elseif share <= 0 or t.group == STABLE then
    return true
  elseif share >= 1 then
    return heard_of(q, CANARY) == 0
  end
  return not (canarys_turn(q) and canary_waits(q))
end

-- A task was given out: say to which group, and whose turn that was.
local function given_to_group(q, id, t, alone)
  local share = count(q, 'canary_share')
  if share > 0 and t.group ~= STABLE and not alone then
    local due = count(q, 'canary_due') + share - (q.group == CANARY and 1 or 0)
    put(q, 'canary_due', math.min(MOST_OWED, math.max(0, due)))
  end
  if q.group == CANARY and t.group ~= STABLE then
    t.group = alone and STABLE or CANARY -- who stands in has suspects as a stable worker has
    redis.call('HSET', key(q, 'task', id), 'group', t.group)
  end
end

-- The end of a claim: a canary notes whether it waits for its turn (`wants`), and each group tells
-- the other when it has taken what that one was waiting behind.
local function groups_claimed(q, worker, taken, wants)
  if count(q, 'canary_share') <= 0 then
    return
  end
  local room, progress = key(q, 'canary_room'), taken > 0
  if q.group == CANARY and wants then
    redis.call('ZADD', room, q.now + q.lease_ms / 10, worker)
    redis.call('PEXPIRE', room, q.lease_ms)
  elseif q.group == CANARY then
    progress = redis.call('ZREM', room, worker) == 1 or progress
  else
    progress = progress and canarys_turn(q)
  end
  if progress and count(q, 'tasks') > 0 then
    wake(q)
  end
end

local function trial_key(q, at)
  return key(q, 'trial', string.format('%.0f:%.0f', count(q, 'canary_trial'), math.floor(at / TRIAL.slot_ms)))
end

local function count_in_trial(q, fields)
  local name = trial_key(q, q.now)
  for _, field in ipairs(fields) do
    redis.call('HINCRBY', name, field, 1)
  end
  redis.call('PEXPIRE', name, TRIAL.kept_ms)
end

-- Classes of times in ms, four to an octave.
local function class_of(ms)
  return math.floor(4 * math.log(math.max(1, ms)) / math.log(2))
end

-- While there is a share, what comes of the tasks of each group is counted: what ('answered',
-- 'empty', 'failed', 'lost'), and of the answered ones the time from the lease to the first token and
-- to the end. A task that came back from a canary tells nothing of either.
local function count_end(q, id, t, what)
  if count(q, 'canary_share') <= 0 or t.group == STABLE then
    return
  end
  local side = t.group == CANARY and 'c:' or 's:'
  local fields = { side .. what }
  if what == 'answered' then
    local times = redis.call('HMGET', key(q, 'task', id), 'leased', 'decode')
    local leased, decode = tonumber(times[1]), tonumber(times[2])
    fields[2] = side .. 'whole:' .. class_of(q.wall - (leased or q.wall))
    if leased and decode then
      fields[3] = side .. 'first:' .. class_of(decode - leased)
    end
  end
  count_in_trial(q, fields)
end
