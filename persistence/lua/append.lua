#!lua
-- Append one entry. KEYS meta, log; ARGV incarnation, epoch, seq, batch id, data
-- A script is not rolled back: every check comes before the first write, and the stream, which has
-- a check of its own (ids must grow), is written before the head.
local m = redis.call('HMGET', KEYS[1], 'inc', 'epoch', 'owner', 'seq', 'batch_id', 'byte_count')
if m[1] ~= ARGV[1] then
  return {'NOJOURNAL', m[1] or ''}
end
if m[2] ~= ARGV[2] then
  return {'FENCED', m[2], m[3]}
end
if m[4] == ARGV[3] and m[5] == ARGV[4] and m[4] ~= '0' then
  return {'OK'}
end
if tonumber(m[4]) + 1 ~= tonumber(ARGV[3]) then
  return {'CONFLICT', m[4]}
end
redis.call('XADD', KEYS[2], ARGV[3] .. '-0', 'e', ARGV[2], 'b', ARGV[4], 'o', m[6], 'd', ARGV[5])
redis.call('HSET', KEYS[1], 'seq', ARGV[3], 'batch_id', ARGV[4])
redis.call('HINCRBY', KEYS[1], 'byte_count', #ARGV[5])
return {'OK'}
