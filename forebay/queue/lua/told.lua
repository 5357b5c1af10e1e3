-- What clients who wait are told, for many tasks in one call; and what they want to be told again.

ON_KEEP[#ON_KEEP + 1] = function(_, task, fields)
  with(fields, 'metadata', task.metadata)
end

-- State, tasks ahead and ms until the start, or no state. A task that follows a running one stands
-- where that does: it is not said to wait while its text comes.
local function standing(q, id)
  local t = load(q, id)
  local leader = t.state == 'queued' and t.leader and load(q, t.leader)
  if leader and HELD[leader.state] then
    return leader.state, -1, -1
  end
  return t.state, outlook(q, id, t)
end

-- args: ids. Returns id, state, tasks ahead, ms until the start of each that is there.
local function glance(q, args)
  local found = {}
  for i = ARGS + 1, #args do
    local row = { args[i], standing(q, args[i]) }
    if row[2] then
      found[#found + 1] = row
    end
  end
  return found
end
