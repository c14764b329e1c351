// A peer on pion. It does what agent.py does.
package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/pion/webrtc/v3"
)

const (
	bufferedHigh = 2 << 20
	bufferedLow  = 1 << 19
	offsetStep   = 7919
)

type object map[string]interface{}

type command struct {
	Do       string
	Bytes    []byte
	SDP      string
	Label    string
	Close    bool
	Count    int
	Messages [][]interface{}
	Init     struct {
		Ordered           *bool   `json:"ordered"`
		MaxRetransmits    *uint16 `json:"maxRetransmits"`
		MaxPacketLifeTime *uint16 `json:"maxPacketLifeTime"`
		Protocol          *string `json:"protocol"`
	}
}

type inbox struct {
	messages    []string
	size        int
	first, last time.Time
	expected    int
}

type agent struct {
	sync.Mutex
	mutex    sync.Mutex
	output   *os.File
	pc       *webrtc.PeerConnection
	pool     []byte
	channels map[string]*webrtc.DataChannel
	inboxes  map[string]*inbox
	writable map[string]chan struct{}
}

func (a *agent) emit(event object) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	line, _ := json.Marshal(event)
	fmt.Fprintln(a.output, string(line))
}

func (a *agent) check(label string) {
	box := a.inboxes[label]
	if box.expected >= 0 && len(box.messages) >= box.expected {
		box.expected = -1
		a.emit(object{"event": "received", "label": label})
	}
}

func (a *agent) add(channel *webrtc.DataChannel) {
	label := channel.Label()
	writable := make(chan struct{}, 1)
	a.Lock()
	a.channels[label] = channel
	a.inboxes[label] = &inbox{messages: []string{}, expected: -1}
	a.writable[label] = writable
	a.Unlock()
	channel.SetBufferedAmountLowThreshold(bufferedLow)
	channel.OnBufferedAmountLow(func() {
		select {
		case writable <- struct{}{}:
		default:
		}
	})
	channel.OnOpen(func() {
		a.emit(object{"event": "open", "label": label, "ordered": channel.Ordered(),
			"maxRetransmits": channel.MaxRetransmits(), "maxPacketLifeTime": channel.MaxPacketLifeTime(),
			"protocol": channel.Protocol()})
	})
	channel.OnClose(func() { a.emit(object{"event": "closed", "label": label}) })
	channel.OnMessage(func(message webrtc.DataChannelMessage) {
		a.Lock()
		defer a.Unlock()
		box := a.inboxes[label]
		box.last = time.Now()
		if len(box.messages) == 0 {
			box.first = box.last
		} else {
			box.size += len(message.Data)
		}
		kind := "binary"
		if message.IsString {
			kind = "text"
		}
		digest := sha256.Sum256(message.Data)
		box.messages = append(box.messages, fmt.Sprintf("%s %d %x", kind, len(message.Data), digest[:8]))
		a.check(label)
	})
}

func (a *agent) send(c command) error {
	a.Lock()
	channel, writable := a.channels[c.Label], a.writable[c.Label]
	a.Unlock()
	number := 0
	for _, planned := range c.Messages {
		kind, size, count := planned[0].(string), int(planned[1].(float64)), int(planned[2].(float64))
		for i := 0; i < count; i++ {
			offset := number * offsetStep % (len(a.pool) - size)
			number++
			for channel.BufferedAmount() > bufferedHigh {
				select {
				case <-writable:
				case <-time.After(100 * time.Millisecond):
				}
			}
			piece := a.pool[offset : offset+size]
			var err error
			if kind == "text" {
				runes := make([]rune, size)
				for j, b := range piece {
					runes[j] = rune(b)
				}
				err = channel.SendText(string(runes))
			} else {
				err = channel.Send(piece)
			}
			if err != nil {
				return err
			}
		}
	}
	if c.Close {
		if err := channel.Close(); err != nil {
			return err
		}
	}
	a.emit(object{"event": "sent", "label": c.Label})
	return nil
}

func (a *agent) describe(description webrtc.SessionDescription, err error) error {
	if err != nil {
		return err
	}
	gathered := webrtc.GatheringCompletePromise(a.pc)
	if err := a.pc.SetLocalDescription(description); err != nil {
		return err
	}
	<-gathered
	a.emit(object{"event": "description", "sdp": a.pc.LocalDescription().SDP})
	return nil
}

func (a *agent) carryOut(c command) error {
	switch c.Do {
	case "pool":
		a.pool = c.Bytes
	case "offer":
		return a.describe(a.pc.CreateOffer(nil))
	case "answer":
		offer := webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: c.SDP}
		if err := a.pc.SetRemoteDescription(offer); err != nil {
			return err
		}
		return a.describe(a.pc.CreateAnswer(nil))
	case "accept":
		return a.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: c.SDP})
	case "create":
		channel, err := a.pc.CreateDataChannel(c.Label, &webrtc.DataChannelInit{Ordered: c.Init.Ordered,
			MaxRetransmits: c.Init.MaxRetransmits, MaxPacketLifeTime: c.Init.MaxPacketLifeTime,
			Protocol: c.Init.Protocol})
		if err != nil {
			return err
		}
		a.add(channel)
	case "send":
		go func() {
			if err := a.send(c); err != nil {
				a.emit(object{"event": "error", "text": "send: " + err.Error()})
			}
		}()
	case "expect":
		a.Lock()
		defer a.Unlock()
		a.inboxes[c.Label].expected = c.Count
		a.check(c.Label)
	case "report":
		a.Lock()
		defer a.Unlock()
		box := a.inboxes[c.Label]
		a.emit(object{"event": "report", "label": c.Label, "messages": box.messages, "size": box.size,
			"seconds": box.last.Sub(box.first).Seconds()})
	case "close":
		return a.channels[c.Label].Close()
	}
	return nil
}

func main() {
	output := os.Stdout
	// pion logs to standard output.
	os.Stdout = os.Stderr
	pc, err := webrtc.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		panic(err)
	}
	a := &agent{output: output, pc: pc, channels: map[string]*webrtc.DataChannel{}, inboxes: map[string]*inbox{},
		writable: map[string]chan struct{}{}}
	pc.OnDataChannel(a.add)
	lines := bufio.NewReaderSize(os.Stdin, 1<<20)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			break
		}
		var c command
		if err := json.Unmarshal(line, &c); err != nil {
			panic(err)
		}
		if c.Do == "quit" {
			break
		}
		if err := a.carryOut(c); err != nil {
			a.emit(object{"event": "error", "text": c.Do + ": " + err.Error()})
		}
	}
	_ = pc.Close()
}
