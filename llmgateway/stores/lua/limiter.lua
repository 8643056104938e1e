-- Limits of many scopes, counted for all workers in one step: the algorithm of `stores/limits/windows.py`.
--
-- KEYS: the epoch, the workers by when they were last heard of, the held calls of `ask.worker`, how far each
-- worker's journal is in the ledger, who has come back after an outage, the tellings of the last minute, then the
-- scopes in the order of `ask.names`. ARGV[1] is `ask`, see `stores/limits/limiter_turn.py`. Times are milliseconds.

local ask = cmsgpack.unpack(ARGV[1])
local now = ask.now
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end

-- After an outage others may have let in what this server does not know of yet: until all workers are there each
-- goes on with its share, and then gives nothing until all have told. They are not waited for for long.
local function gather(workers)
  if workers > 1 and redis.call('EXISTS', KEYS[5]) == 0 then
    redis.call('HSET', KEYS[5], '#', workers)
    redis.call('PEXPIRE', KEYS[5], ask.patience)
  end
end

-- Who finds another epoch than the one it knows has been counting on what is lost: it must say anew what is
-- open, before anything else.
local epoch = redis.call('GET', KEYS[1])
if not epoch then
  epoch = ask.fresh
  redis.call('SET', KEYS[1], epoch)
  gather(ask.live)
end
if ask.epoch and ask.epoch ~= epoch then
  return cmsgpack.pack({ask.turn, epoch, now, 0, false, 0, {}, {}})
end

local window, width = ask.window, ask.width
local counted_until = window - now
local FIRST = 6 -- keys before those of the scopes
local DAY, MONTH = 1, 2 -- which sums a held call is in

if ask.lives then
  local last = tonumber(redis.call('ZREVRANGE', KEYS[2], 0, 0, 'WITHSCORES')[2] or now)
  if now - last > ask.gap then
    gather(redis.call('ZCOUNT', KEYS[2], last - ask.recent, '+inf'))
  end
  redis.call('ZADD', KEYS[2], now, ask.worker)
end
if ask.beats then
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - ask.forgotten)
  redis.call('PEXPIRE', KEYS[3], ask.forgotten)
  if ask.shipped_to then
    redis.call('HSET', KEYS[4], ask.worker, ask.shipped_to)
  end
  redis.call('PEXPIRE', KEYS[4], ask.forgotten)
end

-- Who is silent may be cut off and let its share of a minute through alone: nobody else gets that.
local known = redis.call('ZCOUNT', KEYS[2], now - ask.silence, '+inf')
local silent = known - redis.call('ZCOUNT', KEYS[2], now - ask.recent, '+inf')
local expected = tonumber(redis.call('HGET', KEYS[5], '#') or 0)
local live = math.max(1, known, expected)

local function aside(limit)
  return limit and silent > 0 and math.floor(limit / live) * silent or 0
end

local index_of, stored, uses = {}, {}, {}
if #ask.names > 0 then
  stored = redis.call('MGET', unpack(KEYS, FIRST + 1))
end
for i, name in ipairs(ask.names) do
  index_of[name] = i
end

-- A scope: parts {at, requests, tokens, at, requests, tokens, ...}, days and months {label: {tokens, cost,
-- since}}, places {worker: count}, the last telling {number, at, requests, tokens}, and what each worker was
-- given since that {worker: {requests, tokens}}.
local function opened(i)
  local use = uses[i]
  if use then
    return use
  end
  local is_read, found = false, nil
  if stored[i] then
    is_read, found = pcall(cmsgpack.unpack, stored[i])
  end
  if not is_read or type(found) ~= 'table' then
    found = {{}, {}, {}, {}}
  end
  use = {parts = {}, days = found[2], months = found[3], workers = found[4], requests = 0, tokens = 0, places = 0,
    told = found[5] or {0, 0, 0, 0}, since = found[6] or {}}
  local parts = found[1]
  for j = 1, #parts, 3 do
    local at = math.min(parts[j], now) -- the server's clock may have been set back
    if at > now - window then
      local n = #use.parts
      use.parts[n + 1], use.parts[n + 2], use.parts[n + 3] = at, parts[j + 1], parts[j + 2]
      use.requests = use.requests + parts[j + 1]
      use.tokens = use.tokens + parts[j + 2]
    end
  end
  for _, count in pairs(use.workers) do
    use.places = use.places + count
  end
  uses[i] = use
  return use
end

local function count_part(use, requests, tokens)
  local parts = use.parts
  local n = #parts
  if n == 0 or math.floor(parts[n - 2] / width) ~= math.floor(now / width) then
    parts[n + 1], parts[n + 2], parts[n + 3] = now, 0, 0
    n = n + 3
  end
  parts[n - 2] = now
  parts[n - 1] = parts[n - 1] + requests
  parts[n] = parts[n] + tokens
  use.requests = use.requests + requests
  use.tokens = use.tokens + tokens
end

-- What was let in elsewhere, a while ago.
local function insert_part(use, at, requests, tokens)
  local parts, slot = use.parts, math.floor(at / width)
  local n = #parts
  while n > 0 and math.floor(parts[n - 2] / width) > slot do
    n = n - 3
  end
  if n > 0 and math.floor(parts[n - 2] / width) == slot then
    parts[n - 2], parts[n - 1], parts[n] = math.max(parts[n - 2], at), parts[n - 1] + requests, parts[n] + tokens
  else
    table.insert(parts, n + 1, tokens)
    table.insert(parts, n + 1, requests)
    table.insert(parts, n + 1, at)
  end
  use.requests = use.requests + requests
  use.tokens = use.tokens + tokens
end

-- What is left of a limit is every worker's in equal parts, to be let in alone should this server go away. When
-- one has been given more than its part, all are told anew how much is used. So what is used and what may be
-- let in alone is never more than the limit.
local tellings = {}

local function told_of(use)
  if use.told[2] > now - window then
    return use.told[3], use.told[4]
  end
  return 0, 0
end

local function is_beyond(limit, told, given)
  return limit and given > math.floor(limit / live) - math.ceil(told / live)
end

local function tell(i)
  local use = opened(i)
  use.told = {use.told[1] + 1, now, use.requests, use.tokens}
  use.since = {}
  tellings[i] = {ask.names[i], use.told[1], math.ceil(use.requests / live), math.ceil(use.tokens / live)}
end

local function given(i, limits, requests, tokens)
  if not (limits.requests_per_minute or limits.tokens_per_minute) then
    return
  end
  local use = opened(i)
  local before, told_requests, told_tokens = use.since[ask.worker] or {0, 0}, told_of(use)
  local since = {before[1] + requests, before[2] + tokens}
  use.since[ask.worker] = since
  if is_beyond(limits.requests_per_minute, told_requests, since[1])
    or is_beyond(limits.tokens_per_minute, told_tokens, since[2]) then
    tell(i)
  end
end

local function correct_part(use, slot, more)
  local parts = use.parts
  for n = #parts, 3, -3 do
    if math.floor(parts[n - 2] / width) == slot then
      parts[n] = parts[n] + more
      use.tokens = use.tokens + more
      return
    end
  end
end

local function count_place(use, worker, more)
  local count = (use.workers[worker] or 0) + more
  if count < 0 then
    return -- given back already, when the worker had not been heard of for long
  end
  use.workers[worker] = count > 0 and count or nil
  use.places = use.places + more
end

-- Places of workers that neither live nor were recovered.
local function give_back_places(use)
  for worker, count in pairs(use.workers) do
    if worker ~= ask.worker then
      local heard = redis.call('ZSCORE', KEYS[2], worker)
      if not heard or now - heard > ask.silence then
        use.workers[worker] = nil
        use.places = use.places - count
        use.is_changed = true
      end
    end
  end
end

local function make_room(sums)
  local count, first = 0, nil
  for label in pairs(sums) do
    count = count + 1
    if not first or label < first then
      first = label
    end
  end
  if count >= 3 then
    sums[first] = nil
  end
end

-- `begin` is {index, day since, month since, day's tokens, month's tokens, month's cost, is away}.
local function begin_sums(sums, label, begin, since, tokens, cost)
  local is_away, known = begin[7], sums[label]
  if not known and (is_away or since == 0) then
    make_room(sums)
    sums[label] = is_away and {0, 0, now} or {tokens, cost, 0}
  elseif known and known[3] > 0 and not is_away and known[3] == since then
    known[1], known[2], known[3] = known[1] + tokens, known[2] + cost, 0
  end
end

local function has_month(limits)
  return limits.tokens_per_month or limits.cost_per_month
end

local function begin_all(use, limits, day, month, begin)
  use.is_changed = true
  if limits.tokens_per_day then
    begin_sums(use.days, day, begin, begin[2], begin[4], 0)
  end
  if has_month(limits) then
    begin_sums(use.months, month, begin, begin[3], begin[5], begin[6])
  end
end

local function unknown_of(use, limits, day, month, position)
  local of_day, of_month = use.days[day], use.months[month]
  local needs_day = limits.tokens_per_day and not (of_day and of_day[3] == 0)
  local needs_month = has_month(limits) and not (of_month and of_month[3] == 0)
  if needs_day or needs_month then
    return {position, needs_day and of_day and of_day[3] or 0, needs_month and of_month and of_month[3] or 0}
  end
end

local function add_sums(use, day, month, tokens, cost)
  local of_day, of_month, flags = use.days[day], use.months[month], 0
  if of_day then
    of_day[1] = of_day[1] + tokens
    flags = flags + DAY
  end
  if of_month then
    of_month[1], of_month[2] = of_month[1] + tokens, of_month[2] + cost
    flags = flags + MONTH
  end
  return flags
end

local function over(limit, used, need)
  return limit and used + need > limit
end

local function is_full(use, limits, claim)
  local of_day = use.days[claim[4]] or {0, 0}
  local of_month = use.months[claim[5]] or {0, 0}
  if over(limits.concurrent_requests, use.places, 1) then
    give_back_places(use)
  end
  return over(limits.requests_per_minute, use.requests + aside(limits.requests_per_minute), 1)
    or over(limits.tokens_per_minute, use.tokens, claim[2])
    or use.tokens > 0 and over(limits.tokens_per_minute, use.tokens + aside(limits.tokens_per_minute), claim[2])
    or over(limits.tokens_per_day, of_day[1], claim[2])
    or over(limits.tokens_per_month, of_month[1], claim[2])
    or over(limits.cost_per_month, of_month[2], claim[3])
    or over(limits.concurrent_requests, use.places, 1)
end

local function wait_for(use, limit, used, offset, need)
  if not limit then
    return 0
  end
  if need > limit then
    return -1
  end
  local surplus, wait = used + need - limit, 0
  for j = 1, #use.parts, 3 do
    if surplus <= 0 then
      break
    end
    surplus = surplus - use.parts[j + offset]
    wait = use.parts[j] + counted_until
  end
  return wait
end

local function last_tokens(use)
  for n = #use.parts, 3, -3 do
    if use.parts[n] ~= 0 then
      return use.parts[n - 2] + counted_until
    end
  end
  return 0
end

local function reading(use, limits, claim, is_refused)
  local of_day, of_month = use.days[claim[4]] or {0, 0}, use.months[claim[5]] or {0, 0}
  local parts = use.parts
  local requests = use.requests + aside(limits.requests_per_minute)
  local tokens = use.tokens + aside(limits.tokens_per_minute)
  return {
    requests, tokens, of_day[1], of_month[1], of_month[2], use.places,
    #parts > 0 and parts[#parts - 2] + counted_until or 0,
    use.tokens ~= 0 and last_tokens(use) or 0,
    is_refused and wait_for(use, limits.requests_per_minute, requests, 1, 1) or 0,
    is_refused and wait_for(use, limits.tokens_per_minute, tokens, 2, claim[2]) or 0,
  }
end

local function hold(id, tokens, cost, day, month, slot, scopes)
  redis.call('HSET', KEYS[3], id, cmsgpack.pack({tokens, cost, day, month, slot, scopes}))
end

-- A claim is {id, tokens, cost, day, month, {{scope, limits}, ...}, begins}; without id it is only a look.
local function claimed(claim)
  local id, tokens, cost, day, month, scopes = unpack(claim, 1, 6)
  local away, unknown, readings = {}, {}, {}
  for _, begin in ipairs(claim[7]) do
    local scope = scopes[begin[1] + 1]
    begin_all(opened(scope[1]), scope[2], day, month, begin)
    away[begin[1]] = begin[7]
  end
  for position, scope in ipairs(scopes) do
    local missing = not away[position - 1] and unknown_of(opened(scope[1]), scope[2], day, month, position - 1)
    if missing then
      unknown[#unknown + 1] = missing
    end
  end
  if #unknown > 0 then
    return {false, {}, unknown}
  end
  local is_refused = false
  if id ~= '' then
    for _, scope in ipairs(scopes) do
      is_refused = is_full(opened(scope[1]), scope[2], claim) or is_refused
    end
  end
  if id ~= '' and not is_refused then
    local held = {}
    for _, scope in ipairs(scopes) do
      local use = opened(scope[1])
      count_part(use, 1, tokens)
      count_place(use, ask.worker, 1)
      held[#held + 1] = ask.names[scope[1]]
      held[#held + 1] = add_sums(use, day, month, tokens, cost)
      given(scope[1], scope[2], 1, tokens)
      use.is_changed = true
    end
    hold(id, tokens, cost, day, month, math.floor(now / width), held)
  end
  for position, scope in ipairs(scopes) do
    readings[position] = reading(opened(scope[1]), scope[2], claim, is_refused)
  end
  return {not is_refused, readings, {}}
end

-- A change is {kind, id, tokens, cost, day, month, {{scope, limits}, ...}, ms since it was let in or -1}.
local changes = {}

-- Counts in the minute what a worker has let in alone, where that is not over.
local function let_in(scope, ago, tokens)
  if ago >= 0 and ago < window then
    insert_part(opened(scope[1]), now - ago, 1, tokens)
    given(scope[1], scope[2], 1, tokens)
  end
end

function changes.settle(change)
  local id, tokens, cost = change[2], change[3], change[4]
  local packed = redis.call('HGET', KEYS[3], id)
  if not packed then
    return
  end
  redis.call('HDEL', KEYS[3], id)
  local is_read, held = pcall(cmsgpack.unpack, packed)
  if not is_read or type(held) ~= 'table' then
    return
  end
  local more, more_cost = tokens - held[1], cost - held[2]
  for j = 1, #held[6], 2 do
    local i, flags = index_of[held[6][j]], held[6][j + 1]
    if i then
      local use = opened(i)
      correct_part(use, held[5], more)
      count_place(use, ask.worker, -1)
      local day = flags % 2 == DAY and held[3] or ''
      local month = flags >= MONTH and held[4] or ''
      add_sums(use, day, month, more, more_cost)
      use.is_changed = true
    end
  end
end

-- A call that is open and was let in without asking here, or whose claim is lost.
function changes.hold(change)
  local _, id, tokens, cost, day, month, scopes, ago = unpack(change, 1, 8)
  if redis.call('HEXISTS', KEYS[3], id) == 1 then
    return
  end
  local held = {}
  for _, scope in ipairs(scopes) do
    local use = opened(scope[1])
    begin_all(use, scope[2], day, month, {0, 0, 0, 0, 0, 0, true})
    count_place(use, ask.worker, 1)
    held[#held + 1] = ask.names[scope[1]]
    held[#held + 1] = add_sums(use, day, month, tokens, cost)
    let_in(scope, ago, tokens)
  end
  hold(id, tokens, cost, day, month, ago >= 0 and math.floor((now - ago) / width) or -1, held)
end

-- A call that was let in and has ended without asking here. Sums that have not begun will hold it when they do.
function changes.charge(change)
  local _, _, tokens, cost, day, month, scopes, ago = unpack(change, 1, 8)
  for _, scope in ipairs(scopes) do
    local use = opened(scope[1])
    add_sums(use, day, month, tokens, cost)
    let_in(scope, ago, tokens)
    use.is_changed = true
  end
end

-- All that a worker has let in within the last minute, said to a server that has lost its counts:
-- {kind, scope, {ms ago, requests, tokens, ...}}.
function changes.window(change)
  local scope, parts = change[2], change[3]
  local use = opened(scope[1])
  for j = 1, #parts, 3 do
    if parts[j] < window then
      insert_part(use, now - parts[j], parts[j + 1], parts[j + 2])
    end
  end
  tell(scope[1])
  use.is_changed = true
end

-- A turn's changes are sent again, under the same number, when nobody knows whether they were made.
if #ask.changes > 0 then
  local made = ask.number and tonumber(redis.call('HGET', KEYS[3], '#') or -1) or -1
  if not ask.number or made < ask.number then
    for _, change in ipairs(ask.changes) do
      changes[change[1]](change)
    end
    if ask.number then
      redis.call('HSET', KEYS[3], '#', ask.number)
    end
  end
end

local GATHERED, MISSING, UNTOLD = 0, 1, 2
local stage, is_whole = GATHERED, false
if expected > 0 and ask.lives then
  redis.call('HSET', KEYS[5], ask.worker, ask.has_told and 1 or 0)
  stage = redis.call('HLEN', KEYS[5]) > expected and UNTOLD or MISSING
  if stage == UNTOLD then
    local told = -1 -- the field of their number
    for _, has_told in ipairs(redis.call('HVALS', KEYS[5])) do
      told = told + (has_told ~= '0' and 1 or 0)
    end
    if told >= expected then
      redis.call('DEL', KEYS[5])
      stage, is_whole = GATHERED, true
    end
  end
end

-- Claims that nobody waits for any more are let be.
local answers, is_late = {}, ask.deadline and now > ask.deadline or false
if not is_late and stage == GATHERED then
  for n, claim in ipairs(ask.claims) do
    answers[n] = claimed(claim)
  end
end

for i, use in pairs(uses) do
  if use.is_changed then
    redis.call('SET', KEYS[FIRST + i], cmsgpack.pack({use.parts, use.days, use.months, use.workers, use.told,
      use.since}), 'PX', ask.idle)
  end
end

-- {name, number of the telling, requests and tokens of a worker's share that are used}. What is told before all
-- is known is too little: workers hear of it when it is whole.
local news = {}
for _, telling in pairs(tellings) do
  news[#news + 1] = telling
end
if #news > 0 then
  news = cmsgpack.pack(news)
  if stage == GATHERED and not is_whole then
    redis.call('PUBLISH', ask.channel, news)
  end
  redis.call('ZREMRANGEBYSCORE', KEYS[6], '-inf', now - window)
  redis.call('ZADD', KEYS[6], now, news)
  redis.call('PEXPIRE', KEYS[6], window)
end
if is_whole then
  for _, missed in ipairs(redis.call('ZRANGE', KEYS[6], 0, -1)) do
    redis.call('PUBLISH', ask.channel, missed)
  end
end
local shares = {}
for i, use in pairs(uses) do
  local since, requests, tokens = use.since[ask.worker] or {0, 0}, told_of(use)
  if use.is_changed and since[1] + requests > 0 then
    shares[#shares + 1] = {i, use.told[1], math.ceil(requests / live) + since[1], math.ceil(tokens / live) + since[2]}
  end
end
return cmsgpack.pack({ask.turn, epoch, now, live, is_late, stage, answers, shares})
