-- Takes back what a request was counted; not once its window is over.
for at, key in ipairs(KEYS) do
  local seconds, start = ARGV[2 * at], ARGV[2 * at + 1]
  local kept = redis.call('HGET', key, seconds) or ''
  local mine = '^(' .. start .. ' .-' .. ARGV[1] .. '=)(%d+)(.*)$'
  local before, count, after = string.match(kept, mine)
  if count and count ~= '0' then redis.call('HSET', key, seconds, before .. count - 1 .. after) end
end
