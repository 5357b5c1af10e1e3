-- What operators and canaries say of a trial: its start, the share, how it goes.

local function new_trial(q)
  bump(q, 'canary_trial', 1)
  put(q, 'canary_due', 0)
  redis.call('HSET', key(q, 'canary'), 'since', q.wall)
end

-- args: nonce, what the canary runs. A canary has started; another thing that it runs begins a trial.
local function canary_begin(q, args)
  local nonce, about = args[ARGS + 1], args[ARGS + 2]
  local known = key(q, 'canary')
  local before = redis.call('HMGET', known, 'begun', 'about')
  if before[1] == nonce then
    return 0
  end
  redis.call('HSET', known, 'begun', nonce, 'about', about)
  if before[2] ~= about then
    new_trial(q)
  end
  count_in_trial(q, { 'c:starts' })
  return 1
end

-- args: share, trial in which alone it is to be set (empty: in any), what the log says of it (with
-- an id, so that none is written twice), most entries of the log here, ms to keep them. Returns 1;
-- 0 where another trial has begun.
local function canary_set(q, args)
  local share, trial, entry, most, log_ms = unpack(args, ARGS + 1)
  local known, log = key(q, 'canary'), key(q, 'canary_log')
  local same = redis.call('HGET', known, 'entry') == entry
  if same and count(q, 'canary_share') == number(share) then
    return 1
  elseif trial ~= '' and number(trial) ~= count(q, 'canary_trial') then
    return 0
  end
  put(q, 'canary_share', number(share))
  new_trial(q)
  redis.call('HSET', known, 'entry', entry)
  if number(most) > 0 then
    redis.call('XADD', log, 'MAXLEN', most, '*', 'entry', entry)
    redis.call('PEXPIRE', log, log_ms)
  end
  wake(q)
  return 1
end

-- args: ms to look back. Returns share, trial, since when (ms), the last entry, what canaries run,
-- workers of each group, and names and values of what was counted in this trial.
local function canary(q, args)
  local window = number(args[ARGS + 1])
  local sums, flat = {}, {}
  for at = q.now - window + TRIAL.slot_ms, q.now, TRIAL.slot_ms do
    for name, value in pairs(by_name(redis.call('HGETALL', trial_key(q, at)))) do
      sums[name] = (sums[name] or 0) + number(value)
    end
  end
  for name, value in pairs(sums) do
    flat[#flat + 1] = name
    flat[#flat + 1] = value
  end
  local known = redis.call('HMGET', key(q, 'canary'), 'since', 'entry', 'about')
  return {
    string.format('%.6g', count(q, 'canary_share')), count(q, 'canary_trial'),
    number(known[1]), known[2] or '', known[3] or '',
    heard_of(q, STABLE), heard_of(q, CANARY), flat,
  }
end

register('canary', canary, { 'no-writes' })
register('canary_begin', canary_begin, { 'allow-oom' })
register('canary_set', canary_set, { 'allow-oom' })
