#!lua
-- Make a journal that is empty and ends at a sequence, in the place of one of a known incarnation.
-- KEYS meta, log, positions; ARGV incarnation, the one it replaces, last sequence, epoch
local inc = redis.call('HGET', KEYS[1], 'inc')
if inc == ARGV[1] then
  return {'OK'}
end
if inc and inc ~= ARGV[2] then
  return {'EXISTS', inc}
end
-- Entries without a head are what is left of a lost journal, which this one replaces.
redis.call('UNLINK', KEYS[2], KEYS[3])
redis.call('HSET', KEYS[1], 'inc', ARGV[1], 'epoch', ARGV[4], 'owner', '', 'owner_info', '',
  'seq', ARGV[3], 'batch_id', '', 'byte_count', '0')
return {'OK'}
