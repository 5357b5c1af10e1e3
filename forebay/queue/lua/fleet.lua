-- The fleet: workers and supervisors say how they are, and find there what is wanted of them. These
-- keys lie under access's hash tag.

-- args: member, what it says, ms to keep it, most members, ms after which a silent one is forgotten.
-- Returns what is wanted of it, or nothing.
local function report(q, args)
  local member, says, keep_ms, most = unpack(args, ARGS + 1, ARGS + 4)
  local members = key(q, 'fleet')
  if
    redis.call('HEXISTS', members, member) == 0
    and redis.call('HLEN', members) >= number(most)
  then
    return ''
  end
  redis.call('HSET', members, member, string.format('%.0f ', q.now) .. says)
  redis.call('PEXPIRE', members, keep_ms)
  return redis.call('HGET', key(q, 'orders'), member) or ''
end

-- args: what is wanted (empty: nothing more), ms to keep that, then each member.
local function order(q, args)
  local wanted, keep_ms = args[ARGS + 1], args[ARGS + 2]
  local orders = key(q, 'orders')
  for i = ARGS + 3, #args do
    if wanted == '' then
      redis.call('HDEL', orders, args[i])
    else
      redis.call('HSET', orders, args[i], wanted)
      redis.call('PEXPIRE', orders, keep_ms)
    end
  end
  return 1
end

-- args: member. It has ended, and is not missed.
local function leave(q, args)
  return redis.call('HDEL', key(q, 'fleet'), args[ARGS + 1])
end

-- Every member with its order, without those that have been silent for so many ms (args), which are
-- forgotten. Returns {now in ms, {member, 'ms what it said', order} of each}.
local function members(q, args)
  local all, silent_ms = key(q, 'fleet'), number(args[ARGS + 1])
  local found, rows = redis.call('HGETALL', all), {}
  local orders = by_name(redis.call('HGETALL', key(q, 'orders')))
  for i = 1, #found, 2 do
    if number(string.match(found[i + 1], '^%d+')) < q.now - silent_ms then
      redis.call('HDEL', all, found[i])
    else
      rows[#rows + 1] = { found[i], found[i + 1], orders[found[i]] or '' }
    end
  end
  return { q.now, rows }
end

register('fleet_report', report, { 'allow-oom' })
register('fleet_order', order, { 'allow-oom' })
register('fleet_leave', leave, { 'allow-oom' })
register('fleet', members, { 'allow-oom' })
