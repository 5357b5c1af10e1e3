-- Whose turn it is among the waiting. A claim takes many tasks, so it reads lines and rings a part at
-- a time, keeps in q.lines and q.rings what it has taken, and flush() writes that at once.

local PART = 64 -- entries that one look at a line or a ring reads at most

local function comes_before(a, b)
  return a.tag < b.tag or (a.tag == b.tag and a.tenant < b.tenant)
end

local function line_of(q, level, tenant)
  local name = line_key(q, level, tenant)
  local line = q.lines[name]
  if not line then
    line = { at = 1, ids = {}, size = 1 }
    q.lines[name] = line
  end
  if line.at > #line.ids then
    local first = #line.ids
    for _, id in ipairs(redis.call('ZRANGE', name, first, first + line.size - 1)) do
      line.ids[#line.ids + 1] = id
    end
    line.size = math.min(PART, 2 * line.size)
  end
  return line
end

-- The turns of a level. `fresh`: tenants as the ring has them, those from `at` on still in their place.
-- `turned`: tenants that have been served and come again later, in order from `again` on.
local function ring_of(q, level)
  local ring = q.rings[level]
  if not ring then
    ring = { fresh = {}, at = 1, turned = {}, again = 1, gone = {}, size = 2 }
    q.rings[level] = ring
  end
  if ring.at > #ring.fresh and not ring.whole then
    local first = #ring.fresh
    local turns =
      redis.call('ZRANGE', key(q, 'ring', level), first, first + ring.size - 1, 'WITHSCORES')
    for i = 1, #turns, 2 do
      ring.fresh[#ring.fresh + 1] = { tenant = turns[i], tag = tonumber(turns[i + 1]) }
    end
    ring.whole = #turns < 2 * ring.size
    ring.size = math.min(PART, 2 * ring.size)
  end
  return ring
end

-- The tenant whose turn is next; nil: there is none.
local function next_turn(q, level)
  local ring = ring_of(q, level)
  local fresh, turned = ring.fresh[ring.at], ring.turned[ring.again]
  if fresh and turned then
    return comes_before(fresh, turned) and fresh or turned
  end
  return fresh or turned
end

local function pass_turn(ring, turn)
  if ring.fresh[ring.at] == turn then
    ring.at = ring.at + 1
  else
    ring.again = ring.again + 1
  end
end

local function come_again(ring, turn)
  local place = #ring.turned
  while place >= ring.again and comes_before(turn, ring.turned[place]) do
    ring.turned[place + 1] = ring.turned[place]
    place = place - 1
  end
  ring.turned[place + 1] = turn
end

local function flush_line(q, name, line)
  local ids = line.ids
  for i = #ids, line.at, -1 do
    ids[i] = nil -- read, not taken
  end
  in_parts(ids, 1, 'ZREM', name)
end

-- With nobody left in the lines of a level, nobody's turn is worth keeping.
local function flush_ring(q, level, ring)
  local name = key(q, 'ring', level)
  if count(q, 'waiting:' .. level) <= 0 then
    redis.call('DEL', name)
    return
  end
  local turns = {}
  for i = ring.again, #ring.turned do
    turns[#turns + 1] = ring.turned[i].tag
    turns[#turns + 1] = ring.turned[i].tenant
  end
  in_parts(ring.gone, 1, 'ZREM', name)
  in_parts(turns, 2, 'ZADD', name)
end

ON_FLUSH[#ON_FLUSH + 1] = function(q)
  for name, line in pairs(q.lines) do
    flush_line(q, name, line)
  end
  for level, ring in pairs(q.rings) do
    flush_ring(q, level, ring)
  end
end

-- The task at the head of a level: the first in the line of the tenant whose turn it is.
local function head(q, level)
  while true do
    local turn = next_turn(q, level)
    if not turn then
      return nil
    end
    local line = line_of(q, level, turn.tenant)
    local id = line.ids[line.at]
    if not id then
      local ring = q.rings[level]
      pass_turn(ring, turn)
      ring.gone[#ring.gone + 1] = turn.tenant
    else
      local t = load(q, id)
      if t.state then
        return { id = id, t = t, level = level, turn = turn }
      end
      table.remove(line.ids, line.at)
      forget(q, id, level, turn.tenant)
    end
  end
end

-- The task whose turn it is, and what serving it adds to the credit of the less urgent levels. While
-- they wait, each task that goes first earns them `share` of its cost; what is earned serves, of
-- their heads, the one that came first.
local function next_in_turn(q, heads, share)
  local urgent, patient
  for level = 0, LEVELS - 1 do
    if heads[level] or count(q, WAITING[level]) > 0 then
      heads[level] = heads[level] or head(q, level)
      local here = heads[level]
      if not urgent then
        urgent = here
      elseif here and share > 0 and (not patient or here.t.seq < patient.t.seq) then
        patient = here
      end
    end
  end
  if not patient then
    return urgent, 0
  elseif count(q, 'credit') >= patient.t.cost then
    return patient, -patient.t.cost
  end
  return urgent, share * urgent.t.cost
end

-- Take the task that head() has found out of its line. Its tenant's next turn comes after as many
-- tokens as it has had now, by its weight.
local function take(q, one)
  local t, turn, ring = one.t, one.turn, q.rings[one.level]
  local line = line_of(q, one.level, turn.tenant)
  line.at = line.at + 1
  bump(q, WAITING[one.level], -1)
  counted(q, t, -1)
  if t.deadline > 0 then
    redis.call('ZREM', key(q, 'deadlines'), one.id)
  end
  put(q, 'clock:' .. one.level, turn.tag)
  pass_turn(ring, turn)
  turn.tag = turn.tag + math.max(t.cost, 1) / t.weight
  come_again(ring, turn)
end
