-- Decides a request in all its windows, and counts it if it is admitted.
-- Each field is the start of a window and what each process has admitted in it: `60 a1=3 b2=5`.
local time = redis.call('TIME')
local now, caller = tonumber(time[1]), ARGV[1]
local first, admitted = tonumber(ARGV[2]), true
local counts, changes, written, ends = {}, {}, {}, {}
local function count_it()
  for at, change in pairs(changes) do
    redis.call('HSET', KEYS[at], unpack(change))
    written[at] = true
  end
  changes = {}
end
for i = 3, #ARGV, 5 do
  if #counts == first then  -- the others are its charge, decided if it is admitted
    if not admitted then break end
    count_it()
  end
  local at, seconds, quota = tonumber(ARGV[i]), tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  local kept = redis.call('HGET', KEYS[at], seconds) or ''
  local kept_start = tonumber(string.match(kept, '^%d+'))
  local known_start, mine = tonumber(ARGV[i + 3]), tonumber(ARGV[i + 4])
  if mine == 0 then known_start = nil end
  local start = now - now % seconds
  -- A window that has begun goes on, although the clock of a new master is behind.
  local later = start + seconds
  if kept_start == later or known_start == later then now, start = later, later end
  -- The calling process knows how many it has admitted in this window; the others are kept.
  if known_start ~= start then mine = 0 end
  local others, rest, kept_mine = 0, '', 0
  if kept_start == start then
    for process, count in string.gmatch(kept, ' (%w+)=(%d+)') do
      if process == caller then
        kept_mine = tonumber(count)
      else
        others = others + tonumber(count)
        rest = rest .. ' ' .. process .. '=' .. count
      end
    end
  end
  local format = '%d ' .. caller .. '=%d' .. rest
  if mine > kept_mine then  -- some were lost: also if this call is refused
    redis.call('HSET', KEYS[at], seconds, string.format(format, start, mine))
    written[at] = true
  end
  mine = math.max(mine, kept_mine)
  ends[at] = math.max(ends[at] or 0, start + seconds)
  local count = mine + others
  counts[#counts + 1] = count
  if count < quota then
    changes[at] = changes[at] or {}
    table.insert(changes[at], seconds)
    table.insert(changes[at], string.format(format, start, mine + 1))
  else
    admitted = false
  end
end
if admitted then count_it() end
for at in pairs(written) do redis.call('EXPIREAT', KEYS[at], ends[at]) end
return {now, tonumber(time[2]), unpack(counts)}
