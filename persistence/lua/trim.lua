#!lua flags=allow-oom
-- Remove the oldest entries. KEYS meta, log; ARGV lowest seq to keep, entries at most
-- Allowed on a full Redis: it is what frees memory. The head keeps the last seq.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return {'NOJOURNAL', ''}
end
local first = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]
if not first then
  return {'OK', 0}
end
local slice_end = tonumber(string.match(first[1], '^%d+')) + tonumber(ARGV[2])
local keep_from = math.min(tonumber(ARGV[1]), slice_end)
if keep_from <= 0 then
  return {'OK', 0}
end
return {'OK', redis.call('XTRIM', KEYS[2], 'MINID', string.format('%.0f-0', keep_from))}
