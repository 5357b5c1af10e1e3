-- What processes measured of themselves, for whoever asks one API process about all of them. These
-- keys lie under access's hash tag.

-- args: who measured, what, ms for which that is told, most processes told of; the one that was heard
-- of longest ago is forgotten.
local function measure_put(q, args)
  local process, text, ms, most = unpack(args, ARGS + 1, ARGS + 4)
  local index = key(q, 'measured')
  redis.call('ZADD', index, q.now + number(ms), process)
  redis.call('ZREMRANGEBYSCORE', index, '-inf', q.now)
  redis.call('ZREMRANGEBYRANK', index, 0, -number(most) - 1)
  redis.call('PEXPIRE', index, ms)
  redis.call('SET', key(q, 'measure', process), text, 'PX', ms)
  return 1
end

-- Returns each process that was heard of lately, and what it measured, in turn.
local function measure_all(q)
  local reply = {}
  for _, process in ipairs(redis.call('ZRANGEBYSCORE', key(q, 'measured'), q.now, '+inf')) do
    local text = redis.call('GET', key(q, 'measure', process))
    if text then
      reply[#reply + 1] = process
      reply[#reply + 1] = text
    end
  end
  return reply
end

register('measure_put', measure_put, { 'allow-oom' })
register('measure_all', measure_all, { 'no-writes' })
