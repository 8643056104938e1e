-- Sums of days and months as they are without what is reserved for open calls, and what is to be added to them.
--
-- KEYS: the epoch, the workers by when they were last heard of, how far each one's journal is in the ledger,
-- then the scopes in the order of `ask.names`. ARGV[1] is `ask`, see `stores/limits/redis_sums.py`; the scopes
-- and the held calls are those of `limiter.lua`.

local ask = cmsgpack.unpack(ARGV[1])
local time = redis.call('TIME')
local now = ask.now or time[1] * 1000 + math.floor(time[2] / 1000)
local FIRST, DAY, MONTH = 3, 1, 2

local workers = redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES')
local shipped, silent = now, 0
for i = 1, #workers, 2 do
  local since = now - tonumber(workers[i + 1])
  if since > ask.recent and since <= ask.silence then
    silent = silent + 1
  end
  shipped = math.min(shipped, tonumber(redis.call('HGET', KEYS[3], workers[i]) or 0))
end

local index_of, reserved = {}, {}
for i, name in ipairs(ask.names) do
  index_of[name], reserved[i] = i, {0, 0, 0}
end
if #ask.names > 0 then
  for w = 1, #workers, 2 do
    for _, packed in ipairs(redis.call('HVALS', ask.held .. workers[w])) do
      local is_read, held = pcall(cmsgpack.unpack, packed)
      if is_read and type(held) == 'table' then
        for j = 1, #held[6], 2 do
          local of, flags = reserved[index_of[held[6][j]] or 0], held[6][j + 1]
          if of and flags % 2 == DAY and held[3] == ask.day then
            of[1] = of[1] + held[1]
          end
          if of and flags >= MONTH and held[4] == ask.month then
            of[2], of[3] = of[2] + held[1], of[3] + held[2]
          end
        end
      end
    end
  end
end

-- Sums that began without the ledger get its part with a claim.
local function of_label(sums, label)
  local found = type(sums) == 'table' and sums[label]
  return found and found[3] == 0 and found or nil
end

local rows = {}
for i in ipairs(ask.names) do
  local packed = redis.call('GET', KEYS[FIRST + i])
  local is_read, use = false, nil
  if packed then
    is_read, use = pcall(cmsgpack.unpack, packed)
  end
  local day, month = nil, nil
  if is_read and type(use) == 'table' then
    day, month = of_label(use[2], ask.day), of_label(use[3], ask.month)
  end
  local more = ask.more[i]
  if more and (day or month) then
    if day then
      day[1] = day[1] + more[1]
    end
    if month then
      month[1], month[2] = month[1] + more[2], month[2] + more[3]
    end
    redis.call('SET', KEYS[FIRST + i], cmsgpack.pack(use), 'KEEPTTL')
  end
  local of = reserved[i]
  rows[i] = {day and day[1] - of[1] or false, month and month[1] - of[2] or false, month and month[2] - of[3] or false}
end
return cmsgpack.pack({redis.call('GET', KEYS[1]) or '', now, shipped, silent, rows})
