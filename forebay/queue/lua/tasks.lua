-- Tasks as administrators look for them: across tenants, ended ones too, the newest first.

local MOST_RECENT = 500 -- of each end are listed; the others are known by their ids alone
local MOST_LOOKED_AT = 2000 -- entries of lines in one call
local MOST_ATTEMPTS = 8 -- of one task are remembered

-- What ended lately, by how it ended. Dead letters have an index of their own.
ON_CLOSE[#ON_CLOSE + 1] = function(q, id, state)
  if state ~= 'dead' then
    q.recent = q.recent or {}
    q.recent[state] = q.recent[state] or {}
    table.insert(q.recent[state], id)
  end
end

ON_FLUSH[#ON_FLUSH + 1] = function(q)
  for state, ids in pairs(q.recent or {}) do
    local name = key(q, 'recent', state)
    for first = 1, #ids, AT_ONCE do
      redis.call('LPUSH', name, unpack(ids, first, math.min(first + AT_ONCE - 1, #ids)))
    end
    redis.call('LTRIM', name, 0, MOST_RECENT - 1)
    redis.call('PEXPIRE', name, q.ttl_ms)
  end
end

-- Remember a delivery that came to nothing, before its times are overwritten by the next.
ON_RETURN[#ON_RETURN + 1] = function(q, id, t, why)
  local task = key(q, 'task', id)
  local now = redis.call('HMGET', task, 'leased', 'encoding', 'prefill', 'decode', 'worker', 'past')
  local past = now[6] and cjson.decode(now[6]) or {}
  past[#past + 1] = {
    t.deliveries, now[5] or '', why or 'lost', q.wall, number(now[1]), number(now[2]),
    number(now[3]), number(now[4]),
  }
  if #past > MOST_ATTEMPTS then
    table.remove(past, 1)
  end
  redis.call('HSET', task, 'past', cjson.encode(past))
end

-- The lines in which somebody waits: of one tenant, or of all (an empty name).
local function lines(q, tenant)
  local found = {}
  for level = 0, LEVELS - 1 do
    if count(q, WAITING[level]) > 0 then
      local names = tenant ~= '' and { tenant } or redis.call('ZRANGE', key(q, 'ring', level), 0, -1)
      for _, name in ipairs(names) do
        found[#found + 1] = line_key(q, level, name)
      end
    end
  end
  return found
end

-- Take from an index by order of arrival what came before the page's beginning, `most` at most. What
-- came before the last that was taken is not known then: the page must not go further back.
local function by_arrival(page, index, most)
  local from = page.before and '(' .. page.before or '+inf'
  local rows = redis.call(
    'ZREVRANGEBYSCORE', index, from, '-inf', 'WITHSCORES', 'LIMIT', 0, most
  )
  for i = 1, #rows, 2 do
    page.found[#page.found + 1] = { id = rows[i], seq = tonumber(rows[i + 1]) }
  end
  if #rows == 2 * most then
    page.horizon = math.max(page.horizon, tonumber(rows[#rows]))
  end
end

-- Take ids of an index that has another order.
local function unordered(q, page, ids)
  page.partial = page.partial or #ids == MOST_RECENT
  for _, id in ipairs(ids) do
    local seq = tonumber((redis.call('HGET', key(q, 'task', id), 'seq')))
    if seq and (not page.before or seq < tonumber(page.before)) then
      page.found[#page.found + 1] = { id = id, seq = seq }
    end
  end
end

local groups = {
  queued = function(q, page)
    local lines = lines(q, page.tenant)
    local each = page.prefix == '' and page.limit or MOST_LOOKED_AT
    each = math.max(1, math.min(each, math.floor(MOST_LOOKED_AT / math.max(1, #lines))))
    for _, line in ipairs(lines) do
      by_arrival(page, line, each)
    end
  end,
  suspect = function(q, page)
    by_arrival(page, key(q, 'suspects'), MOST_RECENT)
  end,
  delayed = function(q, page)
    unordered(q, page, redis.call('ZRANGE', key(q, 'delayed'), 0, MOST_RECENT - 1))
  end,
  running = function(q, page)
    unordered(q, page, redis.call('ZRANGE', key(q, 'leases'), 0, MOST_RECENT - 1))
  end,
  dead = function(q, page)
    unordered(q, page, redis.call('ZREVRANGE', key(q, 'dead'), 0, MOST_RECENT - 1))
  end,
}
local function ended(state)
  return function(q, page)
    unordered(q, page, redis.call('LRANGE', key(q, 'recent', state), 0, -1))
  end
end

groups.finished, groups.failed = ended('finished'), ended('failed')
groups.cancelled, groups.expired = ended('cancelled'), ended('expired')

-- Add a task to a page if it is meant.
local function add(q, page, one)
  if string.sub(one.id, 1, #page.prefix) ~= page.prefix then
    return
  end
  local task = key(q, 'task', one.id)
  if page.tenant ~= '' and redis.call('HGET', task, 'tenant') ~= page.tenant then
    return
  end
  local fields = redis.call('HGETALL', task)
  if #fields > 0 then
    page.rows[#page.rows + 1] = { one.id, string.format('%.0f', one.seq), fields }
  end
end

-- args: how many, tenant and beginning of ids (empty: any), place that the page goes on from (empty:
-- the newest), then the groups. Returns {place that the next page goes on from, or empty at the end;
-- 1 where there may be tasks that no page has; {id, place, fields and values} of each task}.
local function find(q, args)
  local limit, tenant, prefix, before = unpack(args, ARGS + 1, ARGS + 4)
  local page = {
    limit = number(limit), tenant = tenant, prefix = prefix, before = before ~= '' and before,
    found = {}, rows = {}, horizon = 0, partial = false,
  }
  for i = ARGS + 5, #args do
    groups[args[i]](q, page)
  end
  table.sort(page.found, function(a, b)
    return a.seq > b.seq
  end)
  local place = page.horizon
  for _, one in ipairs(page.found) do
    if one.seq < page.horizon then
      break
    end
    add(q, page, one)
    if #page.rows == page.limit then
      place = one.seq
      break
    end
  end
  return {
    place > 0 and string.format('%.0f', place) or '', page.partial and 1 or 0, page.rows,
  }
end

register('find', find, { 'no-writes' })
