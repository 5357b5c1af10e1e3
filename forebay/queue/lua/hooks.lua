-- What is told to the outside when a task ends: webhooks that wait, are leased, are settled.
-- HOOKS, the bounds, comes before this text. A receiver's webhooks stand in a line of their own, so
-- that one which does not answer is passed over at no cost, however many wait for it.

FIELDS[#FIELDS + 1] = 'hook'

local hooks_claim, hooks_settle

do
  local HOSTS_LOOKED_AT = 256 -- bounds the work of one claim

  local function host_of(url)
    return string.lower(string.match(url, '^%a+://([^/?#]+)') or '')
  end

  -- Say when a webhook is due; `at` nil: never again.
  local function place(q, id, host, at)
    local line, hosts = key(q, 'hook_line', host), key(q, 'hook_hosts')
    if at then
      redis.call('ZADD', key(q, 'hooks'), at, id)
      redis.call('ZADD', line, at, id)
    else
      redis.call('ZREM', key(q, 'hooks'), id)
      redis.call('ZREM', line, id)
    end
    local first = redis.call('ZRANGE', line, 0, 0, 'WITHSCORES')[2]
    if first then
      redis.call('ZADD', hosts, first, host)
    else
      redis.call('ZREM', hosts, host)
    end
  end

  local function note(q, id, tries, row, wait_ms)
    local log = key(q, 'hook_log', id)
    redis.call('RPUSH', log, string.format('%.0f %s %s', q.wall, tries, row))
    redis.call('LTRIM', log, -HOOKS.log_most, -1)
    redis.call('PEXPIRE', log, q.ttl_ms + wait_ms)
  end

  local function end_with(q, id, host, tries, row)
    redis.call('DEL', key(q, 'hook', id))
    place(q, id, host, nil)
    note(q, id, tries, row, 0)
  end

  -- Bounds an index by giving up what is due last.
  local function make_room(q, index, most)
    if redis.call('ZCARD', index) < most then
      return
    end
    local id = redis.call('ZREVRANGE', index, 0, 0)[1]
    local of = redis.call('HMGET', key(q, 'hook', id), 'hook', 'hook_tries')
    if of[1] then
      end_with(q, id, host_of(of[1]), of[2], '{"outcome":"crowded_out"}')
      bump(q, 'crowded_out', 1)
    else
      redis.call('ZREM', index, id) -- it has expired
    end
  end

  -- The task as it ended is copied: its own hash lives no longer than its result, and a receiver may
  -- be away for a day. A task that ends again, an operator having sent it back, says so anew.
  ON_CLOSE[#ON_CLOSE + 1] = function(q, id, state, t)
    if not t.hook then
      return
    end
    local hook, host = key(q, 'hook', id), host_of(t.hook)
    make_room(q, key(q, 'hook_line', host), HOOKS.most_per_host)
    make_room(q, key(q, 'hooks'), HOOKS.most)
    redis.call('COPY', key(q, 'task', id), hook, 'REPLACE')
    local text = state == 'finished' and redis.call('GET', key(q, 'body', id))
    redis.call('HSET', hook, 'hook_tries', 0, 'hook_text', text or '')
    redis.call('PEXPIRE', hook, HOOKS.ttl_ms)
    place(q, id, host, q.now)
  end

  local function lease(q, id, host, nonce, until_ms)
    local hook = key(q, 'hook', id)
    if redis.call('EXISTS', hook) == 0 then
      place(q, id, host, nil) -- it has expired
      return nil
    end
    redis.call('HINCRBY', hook, 'hook_tries', 1)
    redis.call('HSET', hook, 'hook_nonce', nonce)
    place(q, id, host, until_ms)
    return { id, redis.call('HGETALL', hook) }
  end

  -- What a claim with this nonce leased already: its reply was lost on the way.
  local function leased_before(q, nonce)
    local given = redis.call('GET', key(q, 'hook_claim', nonce))
    if not given then
      return nil
    end
    local rows = {}
    for id in string.gmatch(given, '%S+') do
      local hook = key(q, 'hook', id)
      if redis.call('HGET', hook, 'hook_nonce') == nonce then
        rows[#rows + 1] = { id, redis.call('HGETALL', hook) }
      end
    end
    return rows
  end

  local function lease_due(q, nonce, limit, per_host, until_ms, busy)
    local rows, ids = {}, {}
    local hosts =
      redis.call('ZRANGEBYSCORE', key(q, 'hook_hosts'), '-inf', q.now, 'LIMIT', 0, HOSTS_LOOKED_AT)
    for _, host in ipairs(hosts) do
      local room = math.min(per_host - (busy[host] or 0), limit - #rows)
      if room > 0 then
        local line = key(q, 'hook_line', host)
        for _, id in
          ipairs(redis.call('ZRANGEBYSCORE', line, '-inf', q.now, 'LIMIT', 0, room))
        do
          local row = lease(q, id, host, nonce, until_ms)
          rows[#rows + 1] = row
          ids[#ids + 1] = row and id
        end
      end
    end
    if #rows > 0 then
      local left = math.max(1, until_ms - q.now)
      redis.call('SET', key(q, 'hook_claim', nonce), table.concat(ids, ' '), 'PX', left)
    end
    return rows
  end

  -- args: nonce, limit, limit of one receiver, lease in ms, then receiver and how many of its
  -- webhooks the caller has in hand. Returns how many wait, how many of them are due, {id, fields and
  -- values} of each that is leased now, and how many were ever given up because too many waited.
  hooks_claim = function(q, args)
    local nonce, limit, per_host, lease_ms = unpack(args, ARGS + 1, ARGS + 4)
    local busy = {}
    for i = ARGS + 5, #args, 2 do
      busy[args[i]] = number(args[i + 1])
    end
    local rows = leased_before(q, nonce)
      or lease_due(q, nonce, number(limit), number(per_host), q.now + number(lease_ms), busy)
    local hooks = key(q, 'hooks')
    return {
      redis.call('ZCARD', hooks),
      redis.call('ZCOUNT', hooks, '-inf', q.now),
      rows,
      count(q, 'crowded_out'),
    }
  end

  -- args: id, nonce of its lease, ms until the next attempt (negative: there is none), what is to be
  -- logged. Returns 1, or 0 where the lease is not this one any more; nothing is changed then.
  hooks_settle = function(q, args)
    local id, nonce, wait_ms, row = unpack(args, ARGS + 1, ARGS + 4)
    local hook = key(q, 'hook', id)
    local of = redis.call('HMGET', hook, 'hook', 'hook_nonce', 'hook_tries')
    if of[2] ~= nonce then
      return 0
    end
    wait_ms = number(wait_ms)
    if wait_ms < 0 then
      end_with(q, id, host_of(of[1]), of[3], row)
      return 1
    end
    redis.call('HDEL', hook, 'hook_nonce')
    redis.call('PEXPIRE', hook, wait_ms + HOOKS.ttl_ms)
    place(q, id, host_of(of[1]), q.now + wait_ms)
    note(q, id, of[3], row, wait_ms)
    return 1
  end
end
