-- Who may come in, and how often: keys, rates, budgets. Keys and cells lie under a hash tag of
-- their own; the last part is of the queue's.

-- What one cell says of a cost: the time at which the next one would be exactly on time, and by how
-- many us this one comes too early; early is nil where it never fits.
local function next_in_cell(q, name, interval_us, burst, cost)
  local due = math.max(q.us, number(redis.call('GET', key(q, 'cell', name))))
  local after = due + cost * interval_us
  if cost > burst then
    return after, nil
  end
  return after, after - burst * interval_us - q.us
end

-- The generic cell rate algorithm over several cells at once: all of them are charged, or none.
-- args: name, us between two of it, burst and cost of each cell. A negative cost gives back.
-- Returns {which cell refuses, or 0; ms until it would not, or -1 where it always will}.
local function throttle(q, args)
  local charged, refusing, wait_us = {}, 0, 0
  for i = ARGS + 1, #args, 4 do
    local interval_us, burst, cost = number(args[i + 1]), number(args[i + 2]), number(args[i + 3])
    local after, early_us = next_in_cell(q, args[i], interval_us, burst, cost)
    local which = (i - ARGS - 1) / 4 + 1
    if cost >= 0 and not early_us then
      return { which, -1 }
    elseif cost >= 0 and early_us > wait_us then
      refusing, wait_us = which, early_us
    end
    charged[which] = { args[i], after }
  end
  if refusing > 0 then
    return { refusing, math.ceil(wait_us / 1000) }
  end
  for _, one in ipairs(charged) do
    local name, after = unpack(one)
    local left_ms = math.ceil((after - q.us) / 1000)
    if left_ms > 0 then
      redis.call('SET', key(q, 'cell', name), string.format('%.0f', after), 'PX', left_ms)
    else
      redis.call('DEL', key(q, 'cell', name))
    end
  end
  return { 0, 0 }
end

-- How many API keys there are; those that the server has let go are first taken off the index.
local function keys_there(q)
  local index = key(q, 'api_keys')
  for _, id in ipairs(redis.call('ZRANGE', index, 0, -1)) do
    if redis.call('EXISTS', key(q, 'api_key', id)) == 0 then
      redis.call('ZREM', index, id)
    end
  end
  return redis.call('ZCARD', index)
end

-- args: mark of a pepper. Returns 1, or 0 where there are keys that were made under another one.
local function key_pepper(q, args)
  local meta, mark = key(q, 'meta'), args[ARGS + 1]
  local noted = redis.call('HGET', meta, 'pepper')
  if noted ~= mark and noted and keys_there(q) > 0 then
    return 0
  elseif noted ~= mark then
    redis.call('HSET', meta, 'pepper', mark)
  end
  return 1
end

-- Forgets every key, and the mark of their pepper. Returns how many keys there were.
local function key_clear(q)
  local index = key(q, 'api_keys')
  local ids = redis.call('ZRANGE', index, 0, -1)
  for _, id in ipairs(ids) do
    redis.call('DEL', key(q, 'api_key', id))
  end
  redis.call('DEL', index)
  redis.call('HDEL', key(q, 'meta'), 'pepper')
  return #ids
end

-- args: id, most keys, ms to keep it or 0, then its fields and values. Returns 1, or 0 where there
-- are as many keys as there may be.
local function key_write(q, args)
  local id, most, keep_ms = args[ARGS + 1], number(args[ARGS + 2]), number(args[ARGS + 3])
  local index, hash = key(q, 'api_keys'), key(q, 'api_key', id)
  if redis.call('EXISTS', hash) == 1 then
    return 1
  elseif redis.call('ZCARD', index) >= most and keys_there(q) >= most then
    return 0
  end
  redis.call('HSET', hash, unpack(args, ARGS + 4))
  redis.call('ZADD', index, q.now, id)
  if keep_ms > 0 then
    redis.call('PEXPIRE', hash, keep_ms)
  end
  return 1
end

-- args: id, hash of the key as it was read, hash of the new one, s until which the one before stays
-- good, now in s. Returns 1; 0 where the key is gone or was changed meanwhile.
local function key_rotate(q, args)
  local id, before, after, good_until, now = unpack(args, ARGS + 1)
  local hash = key(q, 'api_key', id)
  local mac, revoked = unpack(redis.call('HMGET', hash, 'mac', 'revoked'))
  if mac == after then
    return 1
  elseif mac ~= before or revoked then
    return 0
  end
  redis.call('HSET', hash, 'mac', after, 'old_mac', before, 'old_until', good_until, 'rotated', now)
  return 1
end

-- args: id, now in s, ms for which the revoked key is still listed. Returns 1; 0 for an unknown one.
local function key_revoke(q, args)
  local id, now, keep_ms = unpack(args, ARGS + 1)
  local hash = key(q, 'api_key', id)
  if redis.call('EXISTS', hash) == 0 then
    return 0
  end
  if redis.call('HSETNX', hash, 'revoked', now) == 1 then
    redis.call('PEXPIRE', hash, keep_ms)
  end
  return 1
end

-- In the queue itself: tasks of one caller that have not ended are a set of their ids.
FIELDS[#FIELDS + 1] = 'holder'

ON_ENQUEUE[#ON_ENQUEUE + 1] = function(q, task)
  if not (task.holder and task.max_open) then
    return nil
  end
  local ids = key(q, 'open', task.holder)
  local there = redis.call('SCARD', ids)
  if there >= task.max_open then
    for _, id in ipairs(redis.call('SRANDMEMBER', ids, SWEEP_LIMIT)) do
      if redis.call('EXISTS', key(q, 'task', id)) == 0 then -- its hash was deleted by hand
        there = there - redis.call('SREM', ids, id)
      end
    end
  end
  if there < task.max_open then
    return nil
  end
  local tasks = math.max(1, count(q, 'tasks'))
  local over = (there + 1 - task.max_open) * count(q, 'tokens') / tasks
  return { 'open', 'tasks', there, math.ceil(drained_in(q, over, 1, task.retry_ms)) }
end

ON_KEEP[#ON_KEEP + 1] = function(q, task)
  if task.holder and task.max_open then
    redis.call('SADD', key(q, 'open', task.holder), task.id)
    redis.call('HSET', key(q, 'task', task.id), 'holder', task.holder)
  end
end

ON_CLOSE[#ON_CLOSE + 1] = function(q, id, _, t)
  if t.holder then
    redis.call('SREM', key(q, 'open', t.holder), id)
  end
end

register('throttle', throttle, { 'allow-oom' })
register('key_write', key_write, {})
register('key_pepper', key_pepper, { 'allow-oom' })
register('key_clear', key_clear, { 'allow-oom' })
register('key_rotate', key_rotate, { 'allow-oom' })
register('key_revoke', key_revoke, { 'allow-oom' })
