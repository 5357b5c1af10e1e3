-- Alerts: who judges them, and what came of it. These keys lie under access's hash tag.

-- args: who asks, ms for which it judges from now on; 0: no longer. Returns 1; 0 where another does.
local function alert_lead(q, args)
  local owner, ms = args[ARGS + 1], number(args[ARGS + 2])
  local leader = key(q, 'alert_leader')
  local has = redis.call('GET', leader)
  if has and has ~= owner then
    return 0
  elseif ms > 0 then
    redis.call('SET', leader, owner, 'PX', ms)
  else
    redis.call('DEL', leader)
  end
  return 1
end

-- args: who writes, the alerts, ms to keep them, most changes kept, ms to keep those, then each
-- change. Returns 1; 0, and nothing is written, where another judges by now.
local function alert_keep(q, args)
  local owner, alerts, ms, most, log_ms = unpack(args, ARGS + 1, ARGS + 5)
  if redis.call('GET', key(q, 'alert_leader')) ~= owner then
    return 0
  end
  redis.call('SET', key(q, 'alerts'), alerts, 'PX', ms)
  local log = key(q, 'alert_log')
  for i = ARGS + 6, #args do
    redis.call('XADD', log, 'MAXLEN', most, '*', 'change', args[i])
    redis.call('PEXPIRE', log, log_ms)
  end
  return 1
end

register('alert_lead', alert_lead, { 'allow-oom' })
register('alert_keep', alert_keep, { 'allow-oom' })
