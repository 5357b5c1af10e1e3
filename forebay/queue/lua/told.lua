-- What clients who wait are told, for many tasks in one call; and what they want to be told again.

ON_KEEP[#ON_KEEP + 1] = function(q, task)
  if task.metadata then
    redis.call('HSET', key(q, 'task', task.id), 'metadata', task.metadata)
  end
end

-- args: ids. Returns id, state, tasks ahead, ms until the start of each that is there.
local function glance(q, args)
  local found = {}
  for i = ARGS + 1, #args do
    local t = load(q, args[i])
    if t.state then
      found[#found + 1] = { args[i], t.state, outlook(q, args[i], t) }
    end
  end
  return found
end
