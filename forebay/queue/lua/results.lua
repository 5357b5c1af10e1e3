-- Answers that are kept or shared. `same:<digest>` names the task whose answer equal ones may have:
-- while it has not ended they follow it, and from its end on, for a while, they get a copy at once.
-- A follower waits in no line; its leader's end is its end, unless the leader was only not wanted
-- any more: then the first follower takes its place.

FIELDS[#FIELDS + 1] = 'same'
FIELDS[#FIELDS + 1] = 'leader'

local MOST_FOLLOWERS = 64 -- bounds what one end has to do

-- The end of a task that has another one's answer, or its error.
local function share(q, from, id, t, state)
  local source = key(q, 'task', from)
  if state ~= 'finished' then
    local why = redis.call('HMGET', source, 'code', 'message')
    close_error(q, id, t, state, why[1], why[2])
    return
  end
  local fields = {}
  local said = redis.call('HMGET', source, 'reason', 'usage', 'more', 'group')
  for i, name in ipairs({ 'reason', 'usage', 'more', 'group' }) do
    if said[i] then
      fields[#fields + 1] = name
      fields[#fields + 1] = said[i]
    end
  end
  close(
    q, id, t, state, fields,
    { 'k', 'done', 'reason', said[1] or '', 'usage', said[2] or '' },
    redis.call('GET', key(q, 'body', from)) or ''
  )
end

local function answer_at_once(q, task, from)
  task.reuse = 'cached'
  keep(q, task)
  share(q, from, task.id, load(q, task.id), 'finished')
  return known(q, task.id, load(q, task.id), true)
end

local function follow(q, task, leader)
  task.reuse, task.leader = 'joined', leader
  local t = keep(q, task)
  redis.call('ZADD', key(q, 'followers', leader), t.seq, task.id)
  watch_deadline(q, task.id, t)
  return known(q, task.id, load(q, task.id), true)
end

-- Nobody waits for one that is less urgent than itself, or is about to stop. Who follows may come to
-- lead, so its own answer has to be one that may be kept.
local function can_lead(q, id, t, task)
  return task.keep
    and not t.cancel
    and (HELD[t.state] or tonumber(t.priority) <= task.priority)
    and redis.call('ZCARD', key(q, 'followers', id)) < MOST_FOLLOWERS
end

ON_ENQUEUE[#ON_ENQUEUE + 1] = function(q, task)
  if not task.same or not task.read or task.delay_ms then
    return nil
  end
  local id = redis.call('GET', key(q, 'same', task.same))
  local t = id and load(q, id)
  if t and t.state == 'finished' and redis.call('EXISTS', key(q, 'body', id)) == 1 then
    return answer_at_once(q, task, id)
  elseif t and (t.state == 'queued' or HELD[t.state]) and can_lead(q, id, t, task) then
    return follow(q, task, id)
  end
  task.leads = true
  return nil
end

ON_KEEP[#ON_KEEP + 1] = function(q, task, fields)
  with(fields, 'leader', task.leader)
  if not task.same or not task.keep then
    return
  end
  with(fields, 'same', task.same)
  if task.leads then
    redis.call('SET', key(q, 'same', task.same), task.id)
  elseif not task.reuse and not task.delay_ms then
    redis.call('SET', key(q, 'same', task.same), task.id, 'NX')
  end
end

local function last_of(q, id)
  local last = redis.call('XREVRANGE', key(q, 'stream', id), '+', '-', 'COUNT', 1)[1]
  if not last then
    return nil
  end
  local ms, n = string.match(last[1], '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(n), last[2]
end

-- Write an entry at the place that follows (ms, n). A reader's place in the one stream is then also a
-- place in the other.
local function say_behind(q, id, ttl_ms, ms, n, ...)
  local stream = key(q, 'stream', id)
  redis.call('XADD', stream, string.format('%.0f-%.0f', ms, n + 1), ...)
  redis.call('PEXPIRE', stream, ttl_ms)
end

-- What has been said so far is void for those who read on in the new leader's stream.
local function start_over(q, id, after)
  local ms, n = last_of(q, after)
  say_behind(q, id, q.stream_ttl_ms, ms, n, 'k', 'restart')
end

-- A follower that ended alone has its last word behind all that its readers have heard.
local function end_behind(q, id, leader)
  local ms, n = last_of(q, leader)
  local own_ms, own_n, entry = last_of(q, id)
  if ms and (own_ms < ms or (own_ms == ms and own_n <= n)) then
    redis.call('DEL', key(q, 'stream', id))
    say_behind(q, id, q.ttl_ms, ms, n, unpack(entry))
  end
end

-- The followers of a task that has ended, without those whose hash someone deleted by hand.
local function take_followers(q, id)
  local found = redis.call('ZRANGE', key(q, 'followers', id), 0, -1)
  local living = {}
  for _, follower in ipairs(found) do
    if redis.call('EXISTS', key(q, 'task', follower)) == 1 then
      living[#living + 1] = follower
    else
      redis.call('ZREM', key(q, 'deadlines'), follower)
      deleted(q, follower)
    end
  end
  if #found > 0 then
    redis.call('DEL', key(q, 'followers', id))
  end
  return living
end

local function hand_over(q, old, followers)
  local heir = followers[1]
  local t = load(q, heir)
  redis.call('HDEL', key(q, 'task', heir), 'leader', 'reuse')
  start_over(q, heir, old)
  join(q, heir, t)
  wake(q)
  for i = 2, #followers do
    redis.call('HSET', key(q, 'task', followers[i]), 'leader', heir)
    redis.call('ZADD', key(q, 'followers', heir), load(q, followers[i]).seq, followers[i])
  end
  local pointer = t.same and key(q, 'same', t.same)
  local named = pointer and redis.call('GET', pointer)
  if pointer and (not named or named == old) then
    redis.call('SET', pointer, heir)
  end
end

-- What `same:` says once a task has ended that stood for its digest. A canary's answer is of another
-- model: it is its own task's, and of those that followed that run.
local function remember(q, id, state, t)
  local pointer = key(q, 'same', t.same)
  local ms = math.min(q.cache_ms, q.ttl_ms)
  if state == 'finished' and ms > 0 and t.group ~= CANARY then
    redis.call('SET', pointer, id, 'PX', ms)
  elseif redis.call('GET', pointer) == id then
    redis.call('DEL', pointer)
  end
end

ON_CLOSE[#ON_CLOSE + 1] = function(q, id, state, t)
  if t.leader then
    redis.call('ZREM', key(q, 'followers', t.leader), id)
    if state == 'cancelled' or state == 'expired' then
      end_behind(q, id, t.leader)
    end
    return
  end
  if not t.same then
    return -- nobody follows it
  end
  if not t.reuse then
    remember(q, id, state, t)
  end
  local followers = take_followers(q, id)
  if #followers > 0 and (state == 'cancelled' or state == 'expired') then
    hand_over(q, id, followers)
    return
  end
  for _, follower in ipairs(followers) do
    local one = load(q, follower)
    leave(q, follower, one)
    share(q, id, follower, one, state)
  end
end

-- Who reads its stream is told, rather than left to wait: nobody writes there any more.
ON_DELETED[#ON_DELETED + 1] = function(q, id)
  say(q, id, q.ttl_ms, 'k', 'error', 'code', 'task_not_found', 'message', 'The task was deleted.')
  local followers = take_followers(q, id)
  if #followers > 0 then
    hand_over(q, id, followers)
  end
end
