-- Sets limits, or removes those without a text; returns all.
local kept = tonumber(redis.call('HGET', KEYS[1], 'version') or '0')
local time = redis.call('TIME')
local version = math.max(kept + 1, time[1] * 1000)
redis.call('HSET', KEYS[1], 'version', string.format('%.0f', version))
for i = 1, #ARGV, 2 do
  if ARGV[i + 1] == '' then redis.call('HDEL', KEYS[1], ARGV[i])
  else redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
return redis.call('HGETALL', KEYS[1])
