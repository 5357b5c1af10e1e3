-- Pictures: who needs which. `blobs` counts, by the SHA-256 of a picture, the tasks that need it: those
-- that have not ended, and dead letters. `holds` has until when a picture is claimed by a request on
-- its way in. What has neither is nobody's. Pictures may also be kept here, one key each.

FIELDS[#FIELDS + 1] = 'pictures'

local function each_picture(text)
  return string.gmatch(text or '', '%S+')
end

local function claim_until(q, sha256, ms)
  local holds = key(q, 'holds')
  redis.call('ZADD', holds, 'GT', q.now + ms, sha256)
  redis.call('PEXPIRE', holds, ms, 'NX')
  redis.call('PEXPIRE', holds, ms, 'GT')
end

local function is_needed(q, sha256)
  if redis.call('HEXISTS', key(q, 'blobs'), sha256) == 1 then
    return true
  end
  return number(redis.call('ZSCORE', key(q, 'holds'), sha256)) > q.now
end

-- A request that took longer on its way in than its pictures were held for starts over.
ON_ENQUEUE[#ON_ENQUEUE + 1] = function(q, task)
  if not task.held then
    return nil
  end
  for sha256 in each_picture(task.pictures) do
    if not is_needed(q, sha256) then
      return { 'unheld', sha256, 0, 1000 }
    end
  end
  return nil
end

local function need(q, pictures)
  for sha256 in each_picture(pictures) do
    if redis.call('HINCRBY', key(q, 'blobs'), sha256, 1) == 1 then
      redis.call('PERSIST', key(q, 'blob', sha256))
    end
  end
end

ON_KEEP[#ON_KEEP + 1] = function(q, task, fields)
  with(fields, 'pictures', task.pictures)
  need(q, task.pictures)
end

local function need_no_more(q, pictures)
  for sha256 in each_picture(pictures) do
    if redis.call('HINCRBY', key(q, 'blobs'), sha256, -1) <= 0 then
      redis.call('HDEL', key(q, 'blobs'), sha256)
      redis.call('PEXPIRE', key(q, 'blob', sha256), q.blob_ttl_ms)
    end
  end
end

ON_CLOSE[#ON_CLOSE + 1] = function(q, _, state, t)
  if state ~= 'dead' then -- an operator may send it back
    need_no_more(q, t.pictures)
  end
end

ON_FORGET[#ON_FORGET + 1] = function(q, _, t)
  need_no_more(q, t.pictures)
end

-- args: for how many ms, then SHA-256s. Claims each, whether it is there or not. Returns how many of
-- them are kept here.
local function hold(q, args)
  redis.call('ZREMRANGEBYSCORE', key(q, 'holds'), '-inf', q.now)
  local ms, there = tonumber(args[ARGS + 1]), 0
  for i = ARGS + 2, #args do
    claim_until(q, args[i], ms)
    local blob = key(q, 'blob', args[i])
    there = there + redis.call('EXISTS', blob)
    redis.call('PEXPIRE', blob, q.blob_ttl_ms, 'GT') -- not where a task has made it stay
  end
  return there
end

-- args: SHA-256s. Returns those that nobody needs.
local function unneeded(q, args)
  local free = {}
  for i = ARGS + 1, #args do
    if not is_needed(q, args[i]) then
      free[#free + 1] = args[i]
    end
  end
  return free
end

-- args: SHA-256, bytes. Keeps a picture here, for as long as a task needs it and blob_ttl after.
local function put_blob(q, args)
  local sha256 = args[ARGS + 1]
  local blob = key(q, 'blob', sha256)
  redis.call('SET', blob, args[ARGS + 2], 'PX', q.blob_ttl_ms)
  if redis.call('HEXISTS', key(q, 'blobs'), sha256) == 1 then
    redis.call('PERSIST', blob)
  end
end
