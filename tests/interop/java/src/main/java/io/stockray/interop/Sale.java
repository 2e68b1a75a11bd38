package io.stockray.interop;

import com.google.protobuf.util.Durations;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.Context;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.ProtoUtils;
import io.grpc.stub.ClientCalls;
import io.stockray.v1.BuyerContext;
import io.stockray.v1.ConfirmLine;
import io.stockray.v1.ConfirmRequest;
import io.stockray.v1.GetStockRequest;
import io.stockray.v1.InventoryServiceGrpc;
import io.stockray.v1.LineStatus;
import io.stockray.v1.PoolKey;
import io.stockray.v1.ReserveLine;
import io.stockray.v1.ReserveManyRequest;
import io.stockray.v1.ReserveRequest;
import io.stockray.v1.ReserveResponse;
import io.stockray.v1.ReserveResult;
import io.stockray.v1.WatchStockRequest;
import io.stockray.v1.WatchStockResponse;
import java.util.ArrayList;
import java.util.Base64;
import java.util.Collection;
import java.util.HashMap;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;

/**
 * The scripted sale by grpc-java: {@code Sale <host:port> <run>}.
 *
 * <p>The steps and what they must say are in tests/interop/python/sale_script.py and
 * tests/interop/sale.py.
 */
public final class Sale {
  private static final int TIMEOUT_S = 10;
  private static final int LARGE_LINES = 4_000;
  private static final int CROWD = 1_000;
  private static final int RESENDS_MAX = 5;
  private static final Metadata.Key<byte[]> DETAILS =
      Metadata.Key.of("grpc-status-details-bin", Metadata.BINARY_BYTE_MARSHALLER);

  private final Channel channel;
  private final String run;
  private final String few;

  private Sale(Channel channel, String run) {
    this.channel = channel;
    this.run = run;
    this.few = run + "-few";
  }

  public static void main(String[] arguments) throws Exception {
    ManagedChannel channel =
        Grpc.newChannelBuilder(arguments[0], InsecureChannelCredentials.create()).build();
    try {
      new Sale(channel, arguments[1]).allSteps();
    } finally {
      channel.shutdownNow().awaitTermination(TIMEOUT_S, TimeUnit.SECONDS);
    }
  }

  private void allSteps() throws Exception {
    ReserveResult first = reserve(few, "first", 1);
    sayReserved("reserve", first);
    sayReserved("retry", reserve(few, "first", 1));
    say("sold_out", "status", reserve(few, "second", 3).getStatus());
    say("reused", "status", reserve(few, "first", 2).getStatus());
    ConfirmLine paid = ConfirmLine.newBuilder()
        .setReservationId(first.getReservationId())
        .setPaymentId(run + "-pay")
        .setPaidMinor(first.getPayableMinor())
        .build();
    ConfirmRequest confirm = ConfirmRequest.newBuilder().setLine(paid).build();
    say("confirm", "status", stub().confirm(confirm).getResult().getStatus());
    refused("refused", () -> reserve(few, "x".repeat(129), 0));
    refused("unimplemented", this::callNothing);
    stream();
    deadline();
    cancelledReserve();
    large();
    crowd();
    books();
  }

  private InventoryServiceGrpc.InventoryServiceBlockingStub stub() {
    return InventoryServiceGrpc.newBlockingStub(channel)
        .withDeadlineAfter(TIMEOUT_S, TimeUnit.SECONDS);
  }

  private static ReserveLine wish(String sku, String id, int quantity) {
    return ReserveLine.newBuilder()
        .setRequestId(id)
        .setSkuId(sku)
        .setQuantity(quantity)
        .setBuyer(BuyerContext.newBuilder().setBuyerId("u-7"))
        .build();
  }

  private ReserveRequest request(String sku, String name, int quantity) {
    return ReserveRequest.newBuilder().setLine(wish(sku, run + "-" + name, quantity)).build();
  }

  private ReserveResult reserve(String sku, String name, int quantity) {
    ReserveRequest request = request(sku, name, quantity);
    ReserveResult result = stub().reserve(request).getResult();
    for (int again = 0; again < RESENDS_MAX && isOpen(result); again++) {
      result = stub().reserve(request).getResult();
    }
    return result;
  }

  private static void sayReserved(String step, ReserveResult result) {
    say(step, "status", result.getStatus(),
        "reservation_id", result.getReservationId(),
        "payable_minor", result.getPayableMinor(),
        "deadline_s", result.getDeadlineTime().getSeconds());
  }

  private static void refused(String step, Runnable call) {
    try {
      call.run();
    } catch (StatusRuntimeException error) {
      Metadata trailers = error.getTrailers();
      byte[] details = trailers == null ? null : trailers.get(DETAILS);
      say(step, "code", error.getStatus().getCode().value(), "details",
          details == null ? "" : Base64.getEncoder().encodeToString(details));
    }
  }

  private void callNothing() {
    MethodDescriptor<ReserveRequest, ReserveResponse> nothing =
        MethodDescriptor.<ReserveRequest, ReserveResponse>newBuilder()
            .setType(MethodDescriptor.MethodType.UNARY)
            .setFullMethodName("stockray.v1.InventoryService/Nothing")
            .setRequestMarshaller(ProtoUtils.marshaller(ReserveRequest.getDefaultInstance()))
            .setResponseMarshaller(ProtoUtils.marshaller(ReserveResponse.getDefaultInstance()))
            .build();
    ClientCalls.blockingUnaryCall(
        channel, nothing, CallOptions.DEFAULT.withDeadlineAfter(TIMEOUT_S, TimeUnit.SECONDS),
        ReserveRequest.getDefaultInstance());
  }

  private WatchStockRequest watch() {
    return WatchStockRequest.newBuilder()
        .addPools(PoolKey.newBuilder().setSkuId(few))
        .setInterval(Durations.fromMillis(100))
        .build();
  }

  private static long nextAvailable(Iterator<WatchStockResponse> messages) {
    while (true) {
      WatchStockResponse message = messages.next();
      if (message.getStocksCount() > 0) {
        return message.getStocks(0).getAvailableCount();
      }
    }
  }

  /** Sees a unit go, then cancels. */
  private void stream() throws Exception {
    Context.CancellableContext context = Context.current().withCancellation();
    Context before = context.attach();
    Iterator<WatchStockResponse> messages = stub().watchStock(watch());
    context.detach(before);
    long first = nextAvailable(messages);
    reserve(few, "stream", 1);
    say("stream", "first", first, "second", nextAvailable(messages));
    context.cancel(null);
    say("cancel", "code", drained(messages, new ArrayList<>()).getCode().value());
  }

  private void deadline() {
    List<WatchStockResponse> seen = new ArrayList<>();
    Status ended = drained(
        InventoryServiceGrpc.newBlockingStub(channel)
            .withDeadlineAfter(500, TimeUnit.MILLISECONDS)
            .watchStock(watch()),
        seen);
    say("deadline", "code", ended.getCode().value(), "messages", seen.size());
  }

  private static Status drained(
      Iterator<WatchStockResponse> messages, List<WatchStockResponse> seen) {
    try {
      messages.forEachRemaining(seen::add);
      return Status.OK;
    } catch (StatusRuntimeException error) {
      return error.getStatus();
    }
  }

  private void cancelledReserve() throws Exception {
    Future<ReserveResponse> flying =
        InventoryServiceGrpc.newFutureStub(channel)
            .withDeadlineAfter(TIMEOUT_S, TimeUnit.SECONDS)
            .reserve(request(few, "cancelled", 1));
    int code = flying.cancel(true) ? Status.Code.CANCELLED.value() : Status.Code.OK.value();
    ReserveResult again = reserve(few, "cancelled", 1);
    say("cancelled_reserve", "code", code, "status", again.getStatus());
  }

  private void large() {
    ReserveManyRequest.Builder request = ReserveManyRequest.newBuilder();
    for (int number = 0; number < LARGE_LINES; number++) {
      String id = run + "-large-" + number + "-";
      ReserveLine line = wish(run + "-many", id + "x".repeat(128 - id.length()), 1);
      BuyerContext buyer = line.getBuyer().toBuilder().addClaims("c".repeat(100)).build();
      request.addLines(line.toBuilder().setBuyer(buyer));
    }
    ReserveManyRequest asked = request.build();
    var answer = stub().reserveMany(asked);
    for (int again = 0; again < RESENDS_MAX; again++) {
      if (answer.getResultsList().stream().noneMatch(Sale::isOpen)) {
        break;
      }
      answer = stub().reserveMany(asked);
    }
    List<String> ids =
        asked.getLinesList().stream().map(ReserveLine::getRequestId).collect(Collectors.toList());
    List<String> answered = answer.getResultsList().stream()
        .map(ReserveResult::getRequestId).collect(Collectors.toList());
    say("large", "request_bytes", asked.getSerializedSize(),
        "response_bytes", answer.getSerializedSize(),
        "in_order", ids.equals(answered),
        "reserved", count(answer.getResultsList(), LineStatus.LINE_STATUS_RESERVED),
        "sold_out", count(answer.getResultsList(), LineStatus.LINE_STATUS_SOLD_OUT));
  }

  /** Whether the answer is to ask again with the same id. */
  private static boolean isOpen(ReserveResult result) {
    LineStatus status = result.getStatus();
    return status == LineStatus.LINE_STATUS_RETRY || status == LineStatus.LINE_STATUS_UNKNOWN;
  }

  private static long count(Collection<ReserveResult> results, LineStatus status) {
    return results.stream().filter(result -> result.getStatus() == status).count();
  }

  private void crowd() throws Exception {
    Map<Integer, ReserveResult> results = new HashMap<>();
    List<Integer> waiting = new ArrayList<>();
    for (int number = 0; number < CROWD; number++) {
      waiting.add(number);
    }
    for (int round = 0; round <= RESENDS_MAX && !waiting.isEmpty(); round++) {
      Map<Integer, Future<ReserveResponse>> flying = new LinkedHashMap<>();
      for (int number : waiting) {
        flying.put(number, InventoryServiceGrpc.newFutureStub(channel)
            .withDeadlineAfter(TIMEOUT_S, TimeUnit.SECONDS)
            .reserve(request(run + "-crowd", "crowd-" + number, 1)));
      }
      for (Map.Entry<Integer, Future<ReserveResponse>> call : flying.entrySet()) {
        results.put(call.getKey(), call.getValue().get().getResult());
      }
      waiting.removeIf(number -> !isOpen(results.get(number)));
    }
    long distinct = results.values().stream()
        .map(ReserveResult::getReservationId).filter(id -> !id.isEmpty()).distinct().count();
    say("crowd",
        "reserved", count(results.values(), LineStatus.LINE_STATUS_RESERVED),
        "sold_out", count(results.values(), LineStatus.LINE_STATUS_SOLD_OUT),
        "distinct", distinct);
  }

  private void books() {
    for (String sku : List.of(few, run + "-many", run + "-crowd")) {
      var stock = stub().getStock(GetStockRequest.newBuilder().setSkuId(sku).build()).getStock();
      say("books", "sku_id", stock.getSkuId(), "total", stock.getTotalCount(),
          "available", stock.getAvailableCount(), "reserved", stock.getReservedCount(),
          "sold", stock.getSoldCount());
    }
  }

  /** One step's report: a line of JSON. Names and values here need no escaping. */
  private static void say(String step, Object... facts) {
    StringBuilder line = new StringBuilder("{\"step\": \"" + step + "\"");
    for (int at = 0; at < facts.length; at += 2) {
      Object value = facts[at + 1];
      boolean bare = value instanceof Number || value instanceof Boolean;
      line.append(", \"").append(facts[at]).append("\": ")
          .append(bare ? value : "\"" + value + "\"");
    }
    System.out.println(line.append("}"));
  }
}
