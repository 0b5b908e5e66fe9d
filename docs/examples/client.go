// Reads a value from the agent of this host, and again whenever a generation changes its file.
package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

func main() {
	agent, file, key := os.Args[1], os.Args[2], os.Args[3]
	client := http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", agent)
		}}}
	last := ""
	for ; ; time.Sleep(time.Second) { // the agent was restarted: it goes on from `last`
		request, _ := http.NewRequest("GET", "http://agent/v1/watch", nil)
		request.Header.Set("Last-Event-ID", last)
		events, err := client.Do(request)
		if err != nil {
			continue
		}
		for lines := bufio.NewScanner(events.Body); lines.Scan(); {
			line := lines.Text()
			if id, found := strings.CutPrefix(line, "id: "); found {
				last = id
			}
			isNews := strings.Contains(line, `"changed":null`) || strings.Contains(line, `"`+file+`"`)
			if !strings.HasPrefix(line, "data: ") || !isNews {
				continue
			}
			answer, err := client.Get("http://agent/v1/values/" + file + "?key=" + key)
			if err == nil {
				body, _ := io.ReadAll(answer.Body)
				fmt.Println(strings.TrimSpace(string(body)), answer.Header.Get("X-Rootcast-Generation"))
			}
		}
	}
}
