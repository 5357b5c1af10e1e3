-- The console's figures: each API process says once a second what it has counted; one of them makes
-- a point of it, and all get the same points. These keys lie under access's hash tag.

-- args: key, place after which, most of them. Returns {place, point} of each point that follows.
local function points_after(name, place, most)
  local rows = {}
  for _, entry in ipairs(redis.call('XRANGE', name, '(' .. place, '+', 'COUNT', most)) do
    rows[#rows + 1] = { entry[1], entry[2][2] }
  end
  return rows
end

-- The processes that have reported within so many ms; the others are forgotten.
local function reports_of(q, silent_ms)
  local reports = key(q, 'live_reports')
  local found, rows = redis.call('HGETALL', reports), {}
  for i = 1, #found, 2 do
    local at, says = string.match(found[i + 1], '^(%d+) (.*)$')
    if number(at) < q.now - silent_ms then
      redis.call('HDEL', reports, found[i])
    else
      rows[#rows + 1] = { found[i], says }
    end
  end
  return rows
end

-- args: process, what it has counted, ms for which it leads or for which a silent one is still
-- counted, ms to keep reports, the place of the last fine point that it has, and of the last coarse
-- one, most points. Returns {whether it leads, light, fine points, coarse points, reports}; the
-- reports for the leader alone.
local function beat(q, args)
  local process, says, lead_ms, keep_ms, fine, coarse, most = unpack(args, ARGS + 1, ARGS + 7)
  local reports, leader = key(q, 'live_reports'), key(q, 'live_leader')
  redis.call('HSET', reports, process, string.format('%.0f ', q.now) .. says)
  redis.call('PEXPIRE', reports, keep_ms)
  local has = redis.call('GET', leader)
  local leads = not has or has == process
  if leads then
    redis.call('SET', leader, process, 'PX', lead_ms)
  end
  return {
    leads and 1 or 0,
    redis.call('GET', key(q, 'live_light')) or '',
    points_after(key(q, 'live'), fine, most),
    points_after(key(q, 'live_coarse'), coarse, most),
    leads and reports_of(q, number(lead_ms)) or {},
  }
end

-- Append a point; returns its place.
local function keep_point(name, point, most, keep_ms)
  if point == '' then
    return ''
  end
  local place = redis.call('XADD', name, 'MAXLEN', most, '*', 'p', point)
  redis.call('PEXPIRE', name, keep_ms)
  return place
end

-- args: process, light, point, most points, coarse point or nothing, most of those, ms to keep all.
-- Returns the places of both points; nothing, and nothing is written, where another leads by now.
local function keep(q, args)
  local process, light, point, most, coarse, most_coarse, keep_ms = unpack(args, ARGS + 1, ARGS + 7)
  if redis.call('GET', key(q, 'live_leader')) ~= process then
    return {}
  end
  redis.call('SET', key(q, 'live_light'), light, 'PX', keep_ms)
  return {
    keep_point(key(q, 'live'), point, most, keep_ms),
    keep_point(key(q, 'live_coarse'), coarse, most_coarse, keep_ms),
  }
end

-- args: 'live' or 'live_coarse', the place after which, most of them.
local function history(q, args)
  local name, place, most = unpack(args, ARGS + 1, ARGS + 3)
  return points_after(key(q, name), place, most)
end

register('live_beat', beat, { 'allow-oom' })
register('live_keep', keep, { 'allow-oom' })
register('live_history', history, { 'no-writes' })
