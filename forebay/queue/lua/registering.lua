-- Names carry the version, so two releases can share a server during an upgrade. What ends or
-- moves accepted work is allowed at full memory; enqueue is not: that refusal is the point.

-- The counters are written also where a function fails half-way: they tell what was done.
local function with_context(f, reads)
  return function(keys, args)
    local q = open(keys, args)
    local fine, reply = pcall(f, q, args)
    if not reads then
      flush(q)
    end
    if not fine then
      error(reply, 0)
    end
    return reply
  end
end

local function register(name, f, flags)
  redis.register_function({
    function_name = 'forebay_' .. VERSION .. '_' .. name,
    callback = with_context(f, flags[1] == 'no-writes'),
    flags = flags,
  })
end
