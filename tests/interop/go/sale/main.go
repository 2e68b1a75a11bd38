// The scripted sale by grpc-go.
//
// Usage: sale <host:port> <run>. The steps and what they must say are in
// ../../python/sale_script.py and ../../sale.py.
package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"
	pb "stockray.io/gen/stockray/v1"
)

const (
	timeout    = 10 * time.Second
	largeLines = 4_000
	crowd      = 1_000
	resendsMax = 5
)

type facts map[string]any

type sale struct {
	connection *grpc.ClientConn
	inventory  pb.InventoryServiceClient
	run, few   string
}

func say(step string, found facts) {
	found["step"] = step
	line, err := json.Marshal(found)
	check(err)
	fmt.Println(string(line))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func within(limit time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	context.AfterFunc(ctx, cancel)
	return ctx
}

func wish(sku, id string, quantity int64) *pb.ReserveLine {
	return &pb.ReserveLine{
		RequestId: id, SkuId: sku, Quantity: quantity, Buyer: &pb.BuyerContext{BuyerId: "u-7"},
	}
}

func (s *sale) reserve(sku, name string, quantity int64) *pb.ReserveResult {
	request := &pb.ReserveRequest{Line: wish(sku, s.run+"-"+name, quantity)}
	answer, err := s.inventory.Reserve(within(timeout), request)
	check(err)
	for again := 0; again < resendsMax && isOpen(answer.Result); again++ {
		answer, err = s.inventory.Reserve(within(timeout), request)
		check(err)
	}
	return answer.Result
}

func sayReserved(step string, result *pb.ReserveResult) {
	say(step, facts{
		"status":         result.Status.String(),
		"reservation_id": result.ReservationId,
		"payable_minor":  result.PayableMinor,
		"deadline_s":     result.GetDeadlineTime().GetSeconds(),
	})
}

// refusals reports two RPC errors with their details as they came.
func (s *sale) refusals() {
	var trailer metadata.MD
	wrong := &pb.ReserveRequest{Line: wish(s.few, s.run+"-"+strings.Repeat("x", 129), 0)}
	_, err := s.inventory.Reserve(within(timeout), wrong, grpc.Trailer(&trailer))
	sayRefused("refused", err, trailer)
	nothing := &emptypb.Empty{}
	trailer = nil
	err = s.connection.Invoke(
		within(timeout), "/stockray.v1.InventoryService/Nothing", nothing, nothing,
		grpc.Trailer(&trailer))
	sayRefused("unimplemented", err, trailer)
}

func sayRefused(step string, err error, trailer metadata.MD) {
	details := ""
	if found := trailer.Get("grpc-status-details-bin"); len(found) > 0 {
		details = base64.StdEncoding.EncodeToString([]byte(found[0]))
	}
	say(step, facts{"code": uint32(status.Code(err)), "details": details})
}

func (s *sale) watch(ctx context.Context) grpc.ServerStreamingClient[pb.WatchStockResponse] {
	messages, err := s.inventory.WatchStock(ctx, &pb.WatchStockRequest{
		Pools:    []*pb.PoolKey{{SkuId: s.few}},
		Interval: durationpb.New(100 * time.Millisecond),
	})
	check(err)
	return messages
}

func nextAvailable(messages grpc.ServerStreamingClient[pb.WatchStockResponse]) int64 {
	for {
		message, err := messages.Recv()
		check(err)
		if len(message.Stocks) > 0 {
			return message.Stocks[0].AvailableCount
		}
	}
}

// stream sees a unit go, then cancels.
func (s *sale) stream() {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	messages := s.watch(ctx)
	first := nextAvailable(messages)
	s.reserve(s.few, "stream", 1)
	say("stream", facts{"first": first, "second": nextAvailable(messages)})
	cancel()
	say("cancel", facts{"code": uint32(status.Code(drained(messages, nil)))})
}

func (s *sale) deadline() {
	count := 0
	err := drained(s.watch(within(500*time.Millisecond)), &count)
	say("deadline", facts{"code": uint32(status.Code(err)), "messages": count})
}

func drained(messages grpc.ServerStreamingClient[pb.WatchStockResponse], count *int) error {
	for {
		if _, err := messages.Recv(); err != nil {
			return err
		}
		if count != nil {
			*count++
		}
	}
}

func (s *sale) cancelledReserve() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan codes.Code)
	go func() {
		_, err := s.inventory.Reserve(ctx, &pb.ReserveRequest{Line: wish(s.few, s.run+"-cancelled", 1)})
		ended <- status.Code(err)
	}()
	cancel()
	code := <-ended
	again := s.reserve(s.few, "cancelled", 1)
	say("cancelled_reserve", facts{"code": uint32(code), "status": again.Status.String()})
}

func (s *sale) large() {
	request := &pb.ReserveManyRequest{}
	for number := range largeLines {
		id := fmt.Sprintf("%s-large-%d-", s.run, number)
		line := wish(s.run+"-many", id+strings.Repeat("x", 128-len(id)), 1)
		line.Buyer.Claims = []string{strings.Repeat("c", 100)}
		request.Lines = append(request.Lines, line)
	}
	answer, err := s.inventory.ReserveMany(within(timeout), request)
	check(err)
	for again := 0; again < resendsMax && slices.ContainsFunc(answer.Results, isOpen); again++ {
		answer, err = s.inventory.ReserveMany(within(timeout), request)
		check(err)
	}
	inOrder := len(answer.Results) == len(request.Lines)
	for at, result := range answer.Results {
		inOrder = inOrder && result.RequestId == request.Lines[at].RequestId
	}
	say("large", facts{
		"request_bytes":  proto.Size(request),
		"response_bytes": proto.Size(answer),
		"in_order":       inOrder,
		"reserved":       count(answer.Results, pb.LineStatus_LINE_STATUS_RESERVED),
		"sold_out":       count(answer.Results, pb.LineStatus_LINE_STATUS_SOLD_OUT),
	})
}

// isOpen tells whether the answer is to ask again with the same id.
func isOpen(result *pb.ReserveResult) bool {
	return result.Status == pb.LineStatus_LINE_STATUS_RETRY ||
		result.Status == pb.LineStatus_LINE_STATUS_UNKNOWN
}

func count(results []*pb.ReserveResult, wanted pb.LineStatus) int {
	found := 0
	for _, result := range results {
		if result.Status == wanted {
			found++
		}
	}
	return found
}

func (s *sale) crowd() {
	results := make([]*pb.ReserveResult, crowd)
	var all sync.WaitGroup
	for number := range crowd {
		name := fmt.Sprintf("crowd-%d", number)
		all.Go(func() { results[number] = s.reserve(s.run+"-crowd", name, 1) })
	}
	all.Wait()
	distinct := map[string]bool{}
	for _, result := range results {
		if result.ReservationId != "" {
			distinct[result.ReservationId] = true
		}
	}
	say("crowd", facts{
		"reserved": count(results, pb.LineStatus_LINE_STATUS_RESERVED),
		"sold_out": count(results, pb.LineStatus_LINE_STATUS_SOLD_OUT),
		"distinct": len(distinct),
	})
}

func (s *sale) books() {
	for _, sku := range []string{s.few, s.run + "-many", s.run + "-crowd"} {
		answer, err := s.inventory.GetStock(within(timeout), &pb.GetStockRequest{SkuId: sku})
		check(err)
		stock := answer.Stock
		say("books", facts{
			"sku_id": stock.SkuId, "total": stock.TotalCount, "available": stock.AvailableCount,
			"reserved": stock.ReservedCount, "sold": stock.SoldCount,
		})
	}
}

func main() {
	insecureOption := grpc.WithTransportCredentials(insecure.NewCredentials())
	connection, err := grpc.NewClient(os.Args[1], insecureOption)
	check(err)
	defer connection.Close()
	run := os.Args[2]
	s := &sale{connection, pb.NewInventoryServiceClient(connection), run, run + "-few"}
	first := s.reserve(s.few, "first", 1)
	sayReserved("reserve", first)
	sayReserved("retry", s.reserve(s.few, "first", 1))
	say("sold_out", facts{"status": s.reserve(s.few, "second", 3).Status.String()})
	say("reused", facts{"status": s.reserve(s.few, "first", 2).Status.String()})
	paid, err := s.inventory.Confirm(within(timeout), &pb.ConfirmRequest{Line: &pb.ConfirmLine{
		ReservationId: first.ReservationId, PaymentId: run + "-pay", PaidMinor: first.PayableMinor,
	}})
	check(err)
	say("confirm", facts{"status": paid.Result.Status.String()})
	s.refusals()
	s.stream()
	s.deadline()
	s.cancelledReserve()
	s.large()
	s.crowd()
	s.books()
}
