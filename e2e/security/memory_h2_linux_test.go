package security_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"sync"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// call makes one call on a connection of its own and waits for its end.
func call(ctx context.Context, addr, path string, body []byte, fields ...hpack.HeaderField) {
	c, ok := openH2(ctx, addr)
	if !ok {
		return
	}
	defer c.close()
	c.headers(1, path, fields...)
	c.send(ctx, 1, body)
	c.wait(ctx, 1)
}

// h2 is a client of HTTP/2 that does what it likes, but keeps to the windows.
type h2 struct {
	conn   net.Conn
	framer *http2.Framer
	write  sync.Mutex
	dead   chan struct{} // the reader ended
	ended  chan uint32   // streams that did
	room   chan int      // window that was given
}

func openH2(ctx context.Context, addr string) (*h2, bool) {
	conn, ok := dialRaw(ctx, addr)
	if !ok {
		return nil, false
	}
	c := &h2{conn: conn, framer: http2.NewFramer(conn, conn), dead: make(chan struct{}), ended: make(chan uint32, 1000), room: make(chan int, 1000)}
	_, _ = io.WriteString(conn, http2.ClientPreface)
	_ = c.framer.WriteSettings()
	go c.read()
	return c, true
}

func (c *h2) read() {
	defer close(c.dead)
	for {
		frame, err := c.framer.ReadFrame()
		if err != nil {
			return
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				c.locked(func() error { return c.framer.WriteSettingsAck() })
			}
		case *http2.PingFrame:
			c.locked(func() error { return c.framer.WritePing(true, f.Data) })
		case *http2.WindowUpdateFrame:
			if f.StreamID != 0 {
				c.tell(c.room, int(f.Increment))
			}
		case *http2.RSTStreamFrame:
			c.end(f.StreamID)
		case *http2.HeadersFrame:
			if f.StreamEnded() {
				c.end(f.StreamID)
			}
		case *http2.GoAwayFrame:
			return
		}
	}
}

func (c *h2) tell(to chan int, n int) {
	select {
	case to <- n:
	default:
	}
}

func (c *h2) end(stream uint32) {
	select {
	case c.ended <- stream:
	default:
	}
}

func (c *h2) locked(write func() error) {
	c.write.Lock()
	defer c.write.Unlock()
	_ = write() // the connection may be gone, which the reader tells
}

// headers opens a stream, in as many frames as it takes.
func (c *h2) headers(stream uint32, path string, fields ...hpack.HeaderField) {
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, f := range append([]hpack.HeaderField{
		{Name: ":method", Value: "POST"},
		{Name: ":scheme", Value: "http"},
		{Name: ":path", Value: path},
		{Name: ":authority", Value: "x"},
		{Name: "content-type", Value: "application/grpc"},
		{Name: "te", Value: "trailers"},
	}, fields...) {
		f.Sensitive = true    // in full, each time
		_ = enc.WriteField(f) // into memory
	}
	c.locked(func() error {
		left := block.Bytes()
		n := min(len(left), 16<<10)
		err := c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: left[:n], EndHeaders: n == len(left)})
		for left = left[n:]; err == nil && len(left) > 0; left = left[n:] {
			n = min(len(left), 16<<10)
			err = c.framer.WriteContinuation(stream, n == len(left), left[:n])
		}
		return err
	})
}

func (c *h2) data(stream uint32, b []byte) {
	c.locked(func() error { return c.framer.WriteData(stream, false, b) })
}

// send sends a body as far as the windows let it.
func (c *h2) send(ctx context.Context, stream uint32, body []byte) {
	room := 64<<10 - 1
	for len(body) > 0 {
		if room == 0 {
			select {
			case n := <-c.room:
				room += n
			case <-c.ended:
				c.end(stream)
				return
			case <-c.dead:
				return
			case <-ctx.Done():
				return
			}
			continue
		}
		n := min(len(body), room, 16<<10)
		c.data(stream, body[:n])
		body, room = body[n:], room-n
	}
	c.locked(func() error { return c.framer.WriteData(stream, true, nil) })
}

// wait waits until so many streams have ended.
func (c *h2) wait(ctx context.Context, streams int) {
	for range streams {
		select {
		case <-c.ended:
		case <-c.dead:
			return
		case <-ctx.Done():
			return
		}
	}
}

func (c *h2) close() {
	_ = c.conn.Close() // it is over
	<-c.dead
}
