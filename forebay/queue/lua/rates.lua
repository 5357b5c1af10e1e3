-- Measured rates: how fast the queue drains, how long tasks wait, how wrong the estimates were.
-- Sums in meta that fade with time, so that their ratios follow what happens now:
--   work: cost of the answered tasks, in tokens; busy: ms in which a worker held something;
--   wait: ms from arrival to first lease; waits: how many; miss: ms by which estimates were
--   wrong; misses: how many.

local FADE_MS = 60000
local SUMS = { 'work', 'busy', 'wait', 'waits', 'miss', 'misses' }

-- Let time pass for the sums. Called before leases change.
local function tick(q)
  local passed = math.max(0, q.now - count(q, 'at'))
  put(q, 'at', q.now)
  if passed == 0 then
    return
  end
  local left = math.exp(-passed / FADE_MS)
  for _, name in ipairs(SUMS) do
    put(q, name, count(q, name) * left)
  end
  if count(q, 'leases') > 0 then
    bump(q, 'busy', (1 - left) * FADE_MS)
  end
end

-- Tokens of cost in a ms of work; nil while nothing was measured.
local function rate(q)
  local work, busy = count(q, 'work'), count(q, 'busy')
  return work > 0 and busy > 0 and work / busy or nil
end

local function mean(q, sum, of)
  return count(q, of) > 0 and count(q, sum) / count(q, of) or -1
end

-- The first lease of a task: how long it has waited, and what it had been told.
local function waited(q, t)
  local ms = math.max(0, q.now - t.seq / 1000)
  bump(q, 'wait', ms)
  bump(q, 'waits', 1)
  if t.eta then
    bump(q, 'miss', math.abs(tonumber(t.eta) - ms))
    bump(q, 'misses', 1)
  end
end
