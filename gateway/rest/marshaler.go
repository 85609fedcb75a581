package rest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/turumba/turumba/kit/apierr"
)

// marshaler is the one codec between REST JSON and protobuf.
type marshaler struct {
	enc encoder
}

var _ runtime.Marshaler = (*marshaler)(nil)

// Marshal writes a message; a stream chunk is written bare, one a line.
func (c *marshaler) Marshal(v any) ([]byte, error) {
	switch v := v.(type) {
	case proto.Message:
		return c.enc.message(v)
	case map[string]any:
		if m, ok := v["result"].(proto.Message); ok {
			return c.enc.message(m)
		}
	case map[string]proto.Message:
		if m, ok := v["error"]; ok {
			return c.streamError(m)
		}
	}
	return json.Marshal(v)
}

// Unmarshal reads a body into a message or into a field of one.
func (c *marshaler) Unmarshal(data []byte, v any) error {
	m, ok := v.(proto.Message)
	if !ok {
		return fmt.Errorf("decode into %T: not a message", v)
	}
	return decodeMessage(data, m)
}

// NewDecoder reads one whole body, whose values were counted: a second value after the
// first is an error.
func (c *marshaler) NewDecoder(r io.Reader) runtime.Decoder {
	return runtime.DecoderFunc(func(v any) error {
		data, err := wholeOf(r)
		if err != nil {
			return err
		}
		if len(data) == 0 {
			return io.EOF
		}
		m := targetOf(v)
		if m == nil {
			return errors.New("the body does not fit the request")
		}
		return parseMessage(data, m)
	})
}

// wholeOf is all of a body, which was read before where it came with a request.
func wholeOf(r io.Reader) ([]byte, error) {
	if taken, ok := r.(*takenBody); ok {
		return taken.data, nil
	}
	return io.ReadAll(r)
}

// NewEncoder writes values one after another.
func (c *marshaler) NewEncoder(w io.Writer) runtime.Encoder {
	return runtime.EncoderFunc(func(v any) error {
		b, err := c.Marshal(v)
		if err != nil {
			return err
		}
		_, err = w.Write(b)
		return err
	})
}

// ContentType is the type of every unary answer.
func (c *marshaler) ContentType(any) string { return "application/json" }

// StreamContentType is the type of every streamed answer: one JSON value a line.
func (c *marshaler) StreamContentType(any) string { return "application/x-ndjson" }

// Delimiter ends each value of a stream.
func (c *marshaler) Delimiter() []byte { return []byte("\n") }

// targetOf finds the message behind what the generated code wants filled: a
// message, or a pointer to a message field, which is made when it is nil.
func targetOf(v any) proto.Message {
	if m, ok := v.(proto.Message); ok {
		return m
	}
	p := reflect.ValueOf(v)
	if p.Kind() != reflect.Pointer || p.Elem().Kind() != reflect.Pointer {
		return nil
	}
	if p.Elem().IsNil() {
		p.Elem().Set(reflect.New(p.Elem().Type().Elem()))
	}
	m, _ := p.Elem().Interface().(proto.Message)
	return m
}

// streamError writes the last line of a stream that failed, in the one error
// shape.
func (c *marshaler) streamError(m proto.Message) ([]byte, error) {
	st, ok := m.(*spb.Status)
	if !ok {
		return c.enc.message(m)
	}
	requestID := ""
	for _, d := range status.FromProto(st).Details() {
		if info, ok := d.(*errdetails.RequestInfo); ok {
			requestID = info.GetRequestId()
		}
	}
	return json.Marshal(errorBody(apierr.From(status.ErrorProto(st)), requestID))
}

// restJSON serves Marshal and Unmarshal; it only caches plans.
var restJSON marshaler

// Marshal writes a message as the REST JSON of the contract.
func Marshal(m proto.Message) ([]byte, error) { return restJSON.enc.message(m) }

// Unmarshal reads the REST JSON of the contract, strictly, however large the message
// becomes: it is for clients, who may ask for what a server refuses.
func Unmarshal(data []byte, m proto.Message) error { return parseMessage(data, m) }
