package sim

import (
	"bufio"
	"bytes"
	"errors"
	"hash/crc32"
	"strconv"
	"time"

	"github.com/turumba/turumba/kit/clock"
)

const maxLine = 998

// content is what reading a message found out.
type content struct {
	messageID        []byte
	tooBig, notClean bool
}

// data takes the content of a message, makes the record of it durable, and
// answers.
func (c *session) data() error {
	if len(c.to) == 0 {
		c.reply("503 5.5.1 no valid recipients")
		return nil
	}
	drawn := c.server.control.draw(c.server.cfg.Clock.Now(), c.from, c.to[0])
	if c.script.Stage == StageNone {
		c.script = drawn.mail()
	}
	if c.script.Stage == StageData {
		return c.act(c.script)
	}
	c.reply("354 go ahead")
	found, err := c.readContent()
	if err != nil {
		return err
	}
	err = c.finish(found)
	c.forget()
	if cap(c.content) > keepBuffer {
		c.content = nil
	}
	return err
}

// finish decides about a message that was read to its end.
func (c *session) finish(found content) error {
	behaviour := c.server.control.get()
	pause := time.Duration(behaviour.LatencyMS)*time.Millisecond + c.script.Delay
	if err := clock.Sleep(c.ctx, c.server.cfg.Clock, pause); err != nil {
		return errHangUp
	}
	switch {
	case found.tooBig:
		c.reply("552 5.3.4 message too big")
	case found.notClean:
		c.reply("554 5.6.0 bare LF, NUL or a line over 998 octets")
	case c.script.Stage == StageEnd && !c.script.Accept:
		return c.act(c.script)
	case c.server.control.unlucky():
		c.reply("451 failing as told")
	default:
		return c.accept(found)
	}
	return nil
}

// accept journals the message before anything is answered.
func (c *session) accept(found content) error {
	now := c.server.cfg.Clock.Now()
	sum := crc32.Checksum(c.content, castagnoli())
	n, err := c.server.journal.append(entry{time: now, to: c.to, messageID: found.messageID, bytes: len(c.content), sum: sum})
	if err != nil {
		c.reply("451 journal failed")
		return nil
	}
	c.server.mailbox.add(n, now, c.from, c.to, c.content)
	switch {
	case c.script.Reset:
		return errReset
	case c.script.Silent:
		<-c.ctx.Done()
		return errReset
	}
	if c.script.Reply != "" {
		c.reply(c.script.Reply)
		return nil
	}
	c.reply("250 2.0.0 queued as ", strconv.FormatInt(n, 10))
	return nil
}

// castagnoli returns the table of the checksum that processors compute.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// readContent reads up to the final dot into c.content, undoing dot stuffing.
func (c *session) readContent() (content, error) {
	var found content
	c.content = c.content[:0]
	lineStart, header := true, true
	for {
		line, err := c.readLine()
		whole := err == nil
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return found, err
		}
		if lineStart && whole && string(line) == ".\r\n" {
			found.messageID = bytes.Clone(found.messageID)
			return found, nil
		}
		if lineStart && line[0] == '.' {
			line = line[1:]
		}
		found.inspect(line, whole)
		start := len(c.content)
		if start+len(line) > c.server.cfg.MaxMessageBytes {
			found.tooBig = true
		} else {
			c.content = append(c.content, line...)
		}
		if header && lineStart {
			header = found.header(line)
		}
		lineStart = whole
	}
}

// inspect checks the form of one line.
func (f *content) inspect(line []byte, whole bool) {
	clean := whole && len(line) <= maxLine+2 && bytes.HasSuffix(line, []byte("\r\n")) && bytes.IndexByte(line, 0) < 0
	f.notClean = f.notClean || !clean
}

// header looks for Message-ID and reports whether the header goes on.
func (f *content) header(line []byte) bool {
	const field = "message-id:"
	if len(line) > len(field) && line[0]|0x20 == 'm' && bytes.EqualFold(line[:len(field)], []byte(field)) {
		f.messageID = bytes.Clone(trimID(line[len(field):]))
	}
	return len(line) > 2
}
