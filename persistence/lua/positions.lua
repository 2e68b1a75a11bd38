#!lua flags=no-writes
-- All readers' positions. KEYS meta, positions
if redis.call('EXISTS', KEYS[1]) == 0 then
  return {'NOJOURNAL', ''}
end
return {'OK', redis.call('HGETALL', KEYS[2])}
