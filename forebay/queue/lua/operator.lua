-- The operator's side: lists, dead letters, drain.

-- Where a list goes on: the place after the entry `member`, which may have left meanwhile.
local function place_after(zset, score, member)
  local rank = redis.call('ZRANK', zset, member)
  if rank then
    return rank + 1
  end
  local place = redis.call('ZCOUNT', zset, '-inf', '(' .. score)
  for _, other in ipairs(redis.call('ZRANGEBYSCORE', zset, score, score)) do
    place = place + (other <= member and 1 or 0)
  end
  return place
end

-- Add entries of one index to a page; the cursor after them, behind what `where` says of the index.
local function add_page(q, page, zset, limit, score, member, ...)
  local from = score and place_after(zset, score, member) or 0
  local room = limit - page.size
  local found = redis.call('ZRANGE', zset, from, from + room - 1, 'WITHSCORES')
  for i = 1, #found, 2 do
    page.size = page.size + 1
    page.cursor = { found[i + 1], found[i], ... }
    page.rows[page.size] = { found[i], redis.call('HGETALL', key(q, 'task', found[i])) }
  end
end

local function add_lines(q, page, limit, level, tenant, cursor)
  local score, member, at_level, at_tenant = unpack(cursor)
  local names = redis.call('ZRANGE', key(q, 'ring', level), 0, -1)
  table.sort(names)
  for _, name in ipairs(names) do
    local here = tonumber(at_level) == level
    local before = here and name < at_tenant
    if page.size < limit and not before and (tenant == '' or name == tenant) then
      local goes_on = here and name == at_tenant
      local line = line_key(q, level, name)
      add_page(q, page, line, limit, goes_on and score, member, level, name)
    end
  end
end

-- args: 'waiting' or the name of an index, how many, level and tenant (empty: every one; of the
-- waiting only), then the cursor that the last page came with, if any. Returns {cursor, {id, fields
-- and values} of each task}. The waiting ones come by level, tenant and arrival.
local function list(q, args)
  local index, limit, level, tenant = unpack(args, ARGS + 1, ARGS + 4)
  local cursor = { unpack(args, ARGS + 5) }
  local page = { size = 0, rows = {}, cursor = {} }
  limit = number(limit)
  if index == 'waiting' then
    local first, last = tonumber(level) or number(cursor[3]), tonumber(level) or LEVELS - 1
    for each = first, last do
      add_lines(q, page, limit, each, tenant, cursor)
    end
  else
    add_page(q, page, key(q, index), limit, cursor[1], cursor[2])
  end
  return { page.size < limit and {} or page.cursor, page.rows }
end

-- args: cursor of HSCAN. Returns what HSCAN does, of the tenants that have waiting tasks.
local function tenants(q, args)
  return redis.call('HSCAN', key(q, 'tenants'), args[ARGS + 1], 'COUNT', 500)
end

-- args: id of a dead letter. It waits again, with all its deliveries, and runs alone: it is known to
-- have gone wrong. Returns 1, or 0 for any other task.
local function retry(q, args)
  local id = args[ARGS + 1]
  local task, t = key(q, 'task', id), load(q, id)
  if t.state ~= 'dead' then
    return 0
  end
  for _, f in ipairs(ON_RETURN) do
    f(q, id, t, 'dead_letter')
  end
  step(t, 'queued')
  local created = t.created or math.floor(t.seq / 1000)
  t.seq, t.deadline = next_seq(q), 0
  redis.call('ZREM', key(q, 'dead'), id)
  redis.call('PERSIST', task)
  redis.call('PERSIST', key(q, 'body', id))
  if t.idem then
    redis.call('PERSIST', key(q, 'idem', t.tenant .. ':' .. t.idem))
  end
  redis.call('DEL', key(q, 'stream', id)) -- the end that it tells of is none
  redis.call(
    'HDEL', task, 'code', 'message', 'finished', 'cancel', 'deadline', 'eta',
    'encoding', 'prefill', 'decode', 'leader', 'reuse'
  )
  redis.call('HSET', task, 'state', t.state, 'seq', t.seq, 'created', created, 'deliveries', 0)
  suspect(q, id, t)
  wake(q)
  return 1
end

-- args: id of a dead letter. Nothing of it is kept. Returns 1, or 0 for any other task.
local function drop(q, args)
  local t = load(q, args[ARGS + 1])
  if t.state ~= 'dead' then
    return 0
  end
  forget_dead(q, args[ARGS + 1], t)
  return 1
end

-- args: 1 or 0. A drained queue takes tasks and gives out none.
local function drain(q, args)
  put(q, 'drained', number(args[ARGS + 1]))
  wake(q)
  return 1
end

register('list', list, { 'no-writes' })
register('tenants', tenants, { 'no-writes' })
register('retry', retry, { 'allow-oom' })
register('drop', drop, { 'allow-oom' })
register('drain', drain, { 'allow-oom' })
