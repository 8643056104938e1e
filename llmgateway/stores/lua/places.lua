-- The places of full models, given in one step for all workers: the algorithm of `domain/fair.py`.
--
-- KEYS: the workers and the number of each one's last batch, the workers by when they were last heard of, a
-- mark that calls may be running which nobody has told of yet, the names of the models; then six of each
-- model in the order of `ask.models`. ARGV[1] is `ask`, see `stores/limits/places_batch.py`. Times are milliseconds.

local ask = cmsgpack.unpack(ARGV[1])
local WORKERS, HEARD, UNTOLD, MODELS = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local PROMPT, COMPLETION = 1, 2
local FORGOTTEN_AT, PACE = 64, 60000
local AN_HOUR = 3600

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- A batch that was held up somewhere may arrive after its worker has given it up and said everything anew.
-- A worker that is not known has to say everything anew: Redis has lost it, or it was taken for dead.
if not ask.recovers then
  local last = redis.call('HGET', WORKERS, ask.worker)
  if last and ask.number <= tonumber(last) then
    return cmsgpack.pack({ask.number, 'old'})
  end
  if not last and not ask.whole then
    return cmsgpack.pack({ask.number, 'unknown'})
  end
  if not last and ask.number > 1 and redis.call('HLEN', WORKERS) == 0 then
    redis.call('SET', UNTOLD, '', 'PX', ask.patience)
  end
  redis.call('HSET', WORKERS, ask.worker, ask.number)
  redis.call('ZADD', HEARD, now, ask.worker)
end
local is_told = redis.call('EXISTS', UNTOLD) == 0

local told = {} -- worker: {granted, refused}

local function tell(worker, what, id)
  local news = told[worker]
  if not news then
    news = {{}, {}}
    told[worker] = news
  end
  local list = news[what]
  list[#list + 1] = id
end

local GRANTED, REFUSED = 1, 2

local function text(number)
  return string.format('%.17g', number)
end

local function serve(model, first_key)
  local CALLS, COUNTERS, WAITING, LINE, LENGTHS, META =
    KEYS[first_key], KEYS[first_key + 1], KEYS[first_key + 2], KEYS[first_key + 3], KEYS[first_key + 4],
    KEYS[first_key + 5]
  local ours = ask.models[model]
  local meta =
    redis.call('HMGET', META, 'order', 'running', 'last', 'left', 'left_at', 'began', 'forget_at', 'rests', 'most')
  local order, running, last = tonumber(meta[1] or 0), tonumber(meta[2] or 0), meta[3]
  local left, left_at, began = tonumber(meta[4] or 0), tonumber(meta[5] or now), tonumber(meta[6] or now)
  local forget_at, rests, most = tonumber(meta[7] or FORGOTTEN_AT), meta[8], ours.most or tonumber(meta[9] or 0)

  local function call_of(id)
    local found = redis.call('HGET', CALLS, id)
    return found and cmsgpack.unpack(found)
  end

  local function keep(id, call)
    redis.call('HSET', CALLS, id, cmsgpack.pack(call))
  end

  local function counter_of(user)
    return tonumber(redis.call('HGET', COUNTERS, user) or 0)
  end

  local function floor()
    local lowest = redis.call('ZRANGE', WAITING, 0, 0, 'WITHSCORES')
    if lowest[2] then
      return tonumber(lowest[2])
    end
    return last and counter_of(last) or 0
  end

  -- Drops the users without calls who would be lifted anyway.
  local function forget()
    if redis.call('HLEN', COUNTERS) <= forget_at then
      return
    end
    local least, running_of = floor(), {}
    for _, packed in ipairs(redis.call('HVALS', CALLS)) do
      running_of[cmsgpack.unpack(packed).user] = true
    end
    local all = redis.call('HGETALL', COUNTERS)
    for i = 1, #all, 2 do
      if not running_of[all[i]] and tonumber(all[i + 1]) < least then
        redis.call('HDEL', COUNTERS, all[i])
      end
    end
    forget_at = math.max(FORGOTTEN_AT, 2 * redis.call('HLEN', COUNTERS))
  end

  local function lift(user)
    redis.call('HSET', COUNTERS, user, text(math.max(counter_of(user), floor())))
  end

  local function charge(call, cost)
    local counter = text(counter_of(call.user) + cost / call.weight)
    redis.call('HSET', COUNTERS, call.user, counter)
    redis.call('ZADD', WAITING, 'XX', counter, call.user)
  end

  local function place_in_line(id, call)
    return call.user .. '\0' .. string.format('%015d', call.order) .. id
  end

  local function unqueue(id, call)
    redis.call('ZREM', LINE, place_in_line(id, call))
    if tonumber(redis.call('ZINCRBY', LENGTHS, -1, call.user)) <= 0 then
      redis.call('ZREM', LENGTHS, call.user)
      redis.call('ZREM', WAITING, call.user)
      last = call.user
    end
  end

  local function queue(id, call)
    redis.call('ZADD', WAITING, text(counter_of(call.user)), call.user)
    redis.call('ZADD', LINE, 0, place_in_line(id, call))
    redis.call('ZINCRBY', LENGTHS, 1, call.user)
  end

  local function enter(turn)
    order = order + 1
    local call = {worker = ask.worker, user = turn[2], weight = turn[3], prompt = turn[4], told = 0, runs = false,
      order = order}
    if not redis.call('ZSCORE', WAITING, call.user) then
      lift(call.user)
    end
    queue(turn[1], call)
    keep(turn[1], call)
    forget()
    return call
  end

  local function begin(id, call)
    unqueue(id, call)
    call.runs = true
    running = running + 1
    charge(call, PROMPT * math.max(1, call.prompt))
    keep(id, call)
  end

  local function one_of(user, command, from, to)
    return string.sub(redis.call(command, LINE, from, to, 'LIMIT', 0, 1)[1], #user + 17)
  end

  local function give()
    while is_told and running < most do
      local user = redis.call('ZRANGE', WAITING, 0, 0)[1]
      if not user then
        return
      end
      local id = one_of(user, 'ZRANGEBYLEX', '[' .. user .. '\0', '(' .. user .. '\1')
      local call = call_of(id)
      begin(id, call)
      tell(call.worker, GRANTED, id)
    end
  end

  local function served(id, tokens)
    local call = call_of(id)
    if call and call.runs and tokens > call.told then
      charge(call, COMPLETION * (tokens - call.told))
      call.told = tokens
      keep(id, call)
    end
  end

  local function leave(id, tokens)
    served(id, tokens)
    local call = call_of(id)
    if not call then
      return
    end
    redis.call('HDEL', CALLS, id)
    if call.runs then
      running = running - 1
      left = left * math.exp(math.min(0, left_at - now) / PACE) + 1
      left_at = now
    else
      unqueue(id, call)
    end
  end

  local function refuse(newcomer, user)
    local longest = redis.call('ZREVRANGE', LENGTHS, 0, 0, 'WITHSCORES')
    local id = newcomer
    if tonumber(longest[2]) > tonumber(redis.call('ZSCORE', LENGTHS, user)) then
      user = longest[1]
      id = one_of(user, 'ZREVRANGEBYLEX', '(' .. user .. '\1', '[' .. user .. '\0')
    end
    tell(call_of(id).worker, REFUSED, id)
    leave(id, 0)
  end

  local function in_flight(turn, tokens)
    lift(turn[2])
    running = running + 1
    return {worker = ask.worker, user = turn[2], weight = turn[3], prompt = turn[4], told = tokens, runs = true,
      order = 0}
  end

  local function hold(turn)
    local call = call_of(turn[1])
    if not call then
      keep(turn[1], in_flight(turn, turn[5]))
    elseif not call.runs then
      begin(turn[1], call)
    end
  end

  -- Through an empty queue: the same as `enter` and `give`.
  local function pass(turn)
    local call = in_flight(turn, 0)
    last = call.user
    charge(call, PROMPT * math.max(1, call.prompt))
    keep(turn[1], call)
    tell(ask.worker, GRANTED, turn[1])
    forget()
  end

  -- All else follows from the calls: for when a script broke off half-way, or a key was evicted.
  local function rebuild()
    redis.call('DEL', WAITING, LINE, LENGTHS)
    running = 0
    local all = redis.call('HGETALL', CALLS)
    for i = 1, #all, 2 do
      local call = cmsgpack.unpack(all[i + 1])
      if call.runs then
        running = running + 1
      else
        order = math.max(order, call.order)
        queue(all[i], call)
      end
    end
  end

  -- What the worker says is all that it has: what it does not name is over.
  local function take_stock()
    local named = {}
    for _, list in ipairs({ours.held, ours.takes}) do
      for _, turn in ipairs(list) do
        named[turn[1]] = true
      end
    end
    local all = redis.call('HGETALL', CALLS)
    for i = 1, #all, 2 do
      if not named[all[i]] and cmsgpack.unpack(all[i + 1]).worker == ask.worker then
        leave(all[i], 0)
      end
    end
    for _, turn in ipairs(ours.held) do
      hold(turn)
    end
  end

  local function take(turn, most_waiting)
    local call = call_of(turn[1])
    if call and call.runs then
      tell(ask.worker, GRANTED, turn[1])
      return
    end
    if not call and is_told and running < most and redis.call('ZCARD', LINE) == 0 then
      pass(turn)
      return
    end
    call = call or enter(turn)
    give()
    if redis.call('ZCARD', LINE) > most_waiting and redis.call('ZSCORE', LINE, place_in_line(turn[1], call)) then
      refuse(turn[1], call.user)
    end
  end

  local has_calls = redis.call('EXISTS', CALLS) == 1
  if ask.whole or not meta[1] or has_calls ~= (running + redis.call('ZCARD', LINE) > 0) then
    rebuild()
  end
  for _, call in ipairs(ours.leaves) do
    leave(call[1], call[2])
  end
  for _, call in ipairs(ours.served) do
    served(call[1], call[2])
  end
  if ask.whole then
    take_stock()
  end
  give()
  for _, turn in ipairs(ours.takes) do
    take(turn, turn[5])
  end
  -- A message may have been lost: who thinks that it waits is told what became of it.
  for _, id in ipairs(ours.waits) do
    local call = call_of(id)
    if not call then
      tell(ask.worker, REFUSED, id)
    elseif call.runs then
      tell(ask.worker, GRANTED, id)
    end
  end

  local waiting = redis.call('ZCARD', LINE)
  local is_at_rest = running == 0 and waiting == 0
  redis.call('HSET', META, 'order', order, 'running', running, 'last', last or '', 'left', text(left), 'left_at',
    left_at, 'began', began, 'forget_at', forget_at, 'rests', is_at_rest and 1 or 0, 'most', most)
  if is_at_rest then
    redis.call('EXPIRE', COUNTERS, AN_HOUR)
    redis.call('EXPIRE', META, AN_HOUR)
  elseif rests == '1' then
    redis.call('PERSIST', COUNTERS)
    redis.call('PERSIST', META)
  end
  if is_at_rest and ask.recovers then
    redis.call('SREM', MODELS, ours.name)
  elseif #ours.takes + #ours.held > 0 then
    redis.call('SADD', MODELS, ours.name)
  end

  local seconds = -1
  local count = left * math.exp(math.min(0, left_at - now) / PACE)
  if count >= 0.01 then
    local seen = PACE * (1 - math.exp(-math.max(1000, now - began) / PACE))
    seconds = waiting * seen / count / 1000
  end
  return {waiting, seconds}
end

local queues = {}
for model = 1, #ask.models do
  queues[model] = serve(model, 5 + (model - 1) * 6)
end

local own = {{}, {}}
for worker, news in pairs(told) do
  if worker == ask.worker and not ask.recovers then
    own = news
  else
    redis.call('PUBLISH', ask.channel .. worker, cmsgpack.pack(news))
  end
end
local dead = {}
if ask.recovers then
  redis.call('HDEL', WORKERS, ask.worker)
  redis.call('ZREM', HEARD, ask.worker)
elseif ask.looks then
  dead = redis.call('ZRANGEBYSCORE', HEARD, '-inf', now - ask.lease, 'LIMIT', 0, 10)
end
return cmsgpack.pack({ask.number, 'done', redis.call('HLEN', WORKERS), queues, own[1], own[2], dead})
