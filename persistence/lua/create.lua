#!lua
-- Make an empty journal. KEYS meta, log, positions; ARGV incarnation
-- meta: hash inc, epoch, owner, owner_info, seq, batch_id, byte_count
-- log: stream, ids <seq>-0, fields e (epoch), b (batch id), o (bytes before it), d (data)
-- positions: hash reader -> seq
local inc = redis.call('HGET', KEYS[1], 'inc')
if inc then
  return inc == ARGV[1] and {'OK'} or {'EXISTS', inc}
end
-- Entries without a head are what is left of a journal: never start empty over them.
if redis.call('EXISTS', KEYS[2]) == 1 then
  return {'EXISTS', ''}
end
redis.call('DEL', KEYS[3])
redis.call('HSET', KEYS[1], 'inc', ARGV[1], 'epoch', '0', 'owner', '', 'owner_info', '',
  'seq', '0', 'batch_id', '', 'byte_count', '0')
return {'OK'}
