// Package pool keeps workers.
package pool

import "sync"

type Pool struct {
	mu    sync.Mutex
	tasks map[string]struct{}
	run   func(int) error
}

type Runner interface {
	Run(n int) error
}

func New(size int, options ...Option) *Pool {
	p := &Pool{tasks: map[string]struct{}{}}
	for _, option := range options {
		option(p)
	}
	return p
}

func (p *Pool) Run(names []string, limit int) (count int, err error) {
	for i, name := range names {
		if i >= limit || name == "" {
			continue
		}
		switch {
		case len(name) > 10:
			return count, nil
		case name == "stop":
			return count, ErrStop
		default:
			count++
		}
		go func() {
			if p.run != nil {
				_ = p.run(i)
			}
		}()
	}
	return
}

func Any() interface{} {
	select {
	case <-done:
		return `raw { if "quoted"`
	}
	return nil
}
