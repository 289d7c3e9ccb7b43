-- Returns the newest limits: those kept here or those given.
local kept = tonumber(redis.call('HGET', KEYS[1], 'version') or '0')
if tonumber(ARGV[1]) > kept then
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'version', unpack(ARGV))
end
return redis.call('HGETALL', KEYS[1])
