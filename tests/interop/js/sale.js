// The scripted sale by grpc-js, with the .proto files loaded as they are.
// Usage: node sale.js <host:port> <run> <folder of the .proto files>
// The steps and what they must say are in ../python/sale_script.py and ../sale.py.
'use strict';
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');

const [target, run, protos] = process.argv.slice(2);
const FEW = `${run}-few`;
const TIMEOUT_MS = 10_000;
const LARGE_LINES = 4_000;
const CROWD = 1_000;
const RESENDS_MAX = 5;

const definition = protoLoader.loadSync('stockray_proto/v1/inventory_service.proto', {
  includeDirs: [protos], keepCase: true, longs: Number, enums: String, defaults: true,
});
const { InventoryService } = grpc.loadPackageDefinition(definition).stockray.v1;
const client = new InventoryService(target, grpc.credentials.createInsecure());

const say = (step, facts) => console.log(JSON.stringify({ step, ...facts }));
const within = (ms) => ({ deadline: Date.now() + ms });
const lineOf = (sku, id, quantity = 1) => ({
  request_id: id, sku_id: sku, quantity, buyer: { buyer_id: 'u-7' },
});
const watchOf = (sku) => ({ pools: [{ sku_id: sku }], interval: { nanos: 100_000_000 } });

// One unary call: resolves to its answer, rejects with the service error.
function call(method, request) {
  return new Promise((resolve, reject) => {
    client[method](request, within(TIMEOUT_MS), (error, answer) => {
      if (error) reject(error); else resolve(answer);
    });
  });
}

// Whether the answer is to ask again with the same id.
const isOpen = ({ status }) => ['LINE_STATUS_RETRY', 'LINE_STATUS_UNKNOWN'].includes(status);

async function reserve(sku, name, quantity = 1) {
  const ask = () => call('Reserve', { line: lineOf(sku, `${run}-${name}`, quantity) });
  let { result } = await ask();
  for (let again = 0; again < RESENDS_MAX && isOpen(result); again += 1) {
    ({ result } = await ask());
  }
  return result;
}

function sayReserved(step, result) {
  say(step, {
    status: result.status,
    reservation_id: result.reservation_id,
    payable_minor: result.payable_minor,
    deadline_s: result.deadline_time ? result.deadline_time.seconds : 0,
  });
}

async function refused(step, promise) {
  const error = await promise.then(() => null, (reason) => reason);
  if (!error) return;
  const [details] = error.metadata.get('grpc-status-details-bin');
  say(step, { code: error.code, details: details ? details.toString('base64') : '' });
}

function unimplemented() {
  const same = (value) => value;
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(
      '/stockray.v1.InventoryService/Nothing', same, same, Buffer.alloc(0),
      new grpc.Metadata(), within(TIMEOUT_MS),
      (error, answer) => { if (error) reject(error); else resolve(answer); },
    );
  });
}

// A watch of the few: sees a unit go, then is cancelled.
function stream() {
  return new Promise((resolve) => {
    const messages = client.WatchStock(watchOf(FEW), within(TIMEOUT_MS));
    const seen = [];
    messages.on('data', (message) => {
      if (!message.stocks.length) return;
      seen.push(message.stocks[0].available_count);
      if (seen.length === 1) reserve(FEW, 'stream');
      if (seen.length === 2) {
        say('stream', { first: seen[0], second: seen[1] });
        messages.cancel();
      }
    });
    messages.on('error', (error) => { say('cancel', { code: error.code }); resolve(); });
  });
}

function deadline() {
  return new Promise((resolve) => {
    const messages = client.WatchStock(watchOf(FEW), within(500));
    let count = 0;
    messages.on('data', () => { count += 1; });
    messages.on('error', (error) => {
      say('deadline', { code: error.code, messages: count });
      resolve();
    });
  });
}

async function cancelledReserve() {
  const code = await new Promise((resolve) => {
    const request = { line: lineOf(FEW, `${run}-cancelled`) };
    const flying = client.Reserve(request, within(TIMEOUT_MS), (error) => {
      resolve(error ? error.code : 0);
    });
    setImmediate(() => flying.cancel());
  });
  say('cancelled_reserve', { code, status: (await reserve(FEW, 'cancelled')).status });
}

const count = (results, status) => results.filter((result) => result.status === status).length;

async function large() {
  const lines = [];
  for (let number = 0; number < LARGE_LINES; number += 1) {
    const line = lineOf(`${run}-many`, `${run}-large-${number}-`.padEnd(128, 'x'));
    line.buyer.claims = ['c'.repeat(100)];
    lines.push(line);
  }
  const { requestSerialize, responseDeserialize } = InventoryService.service.ReserveMany;
  let responseBytes = 0;
  const request = requestSerialize({ lines });
  const ask = () => new Promise((resolve, reject) => {
    client.makeUnaryRequest(
      InventoryService.service.ReserveMany.path, (bytes) => bytes,
      (bytes) => { responseBytes = bytes.length; return responseDeserialize(bytes); },
      request, new grpc.Metadata(), within(TIMEOUT_MS),
      (error, found) => { if (error) reject(error); else resolve(found); },
    );
  });
  let answer = await ask();
  for (let again = 0; again < RESENDS_MAX && answer.results.some(isOpen); again += 1) {
    answer = await ask();
  }
  say('large', {
    request_bytes: request.length,
    response_bytes: responseBytes,
    in_order: answer.results.every((result, at) => result.request_id === lines[at].request_id),
    reserved: count(answer.results, 'LINE_STATUS_RESERVED'),
    sold_out: count(answer.results, 'LINE_STATUS_SOLD_OUT'),
  });
}

async function crowd() {
  const one = (number) => reserve(`${run}-crowd`, `crowd-${number}`);
  const results = await Promise.all(Array.from({ length: CROWD }, (_, number) => one(number)));
  say('crowd', {
    reserved: count(results, 'LINE_STATUS_RESERVED'),
    sold_out: count(results, 'LINE_STATUS_SOLD_OUT'),
    distinct: new Set(results.map((result) => result.reservation_id).filter(Boolean)).size,
  });
}

async function books() {
  for (const sku of [FEW, `${run}-many`, `${run}-crowd`]) {
    const { stock } = await call('GetStock', { sku_id: sku });
    say('books', {
      sku_id: stock.sku_id,
      total: stock.total_count,
      available: stock.available_count,
      reserved: stock.reserved_count,
      sold: stock.sold_count,
    });
  }
}

async function main() {
  const first = await reserve(FEW, 'first');
  sayReserved('reserve', first);
  sayReserved('retry', await reserve(FEW, 'first'));
  say('sold_out', { status: (await reserve(FEW, 'second', 3)).status });
  say('reused', { status: (await reserve(FEW, 'first', 2)).status });
  const line = {
    reservation_id: first.reservation_id, payment_id: `${run}-pay`, paid_minor: first.payable_minor,
  };
  say('confirm', { status: (await call('Confirm', { line })).result.status });
  await refused('refused', reserve(FEW, 'x'.repeat(129), 0));
  await refused('unimplemented', unimplemented());
  await stream();
  await deadline();
  await cancelledReserve();
  await large();
  await crowd();
  await books();
  client.close();
}

main().catch((error) => { console.error(error); process.exitCode = 1; });
