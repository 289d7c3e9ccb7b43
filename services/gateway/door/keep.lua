-- Returns the keys kept. Of two gateways the one with the newer version wins, however late the
-- other's call arrives.
local kept = tonumber(redis.call('HGET', KEYS[1], 'version') or '0')
if tonumber(ARGV[1]) > kept or ARGV[3] == 'over' then
  redis.call('HSET', KEYS[1], 'version', ARGV[1], 'signed', ARGV[2])
end
return redis.call('HGET', KEYS[1], 'signed') or ''
