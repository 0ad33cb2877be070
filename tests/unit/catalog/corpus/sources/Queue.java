package example;

import java.util.ArrayList;
import java.util.List;

/** A queue with priorities. */
public class Queue<T extends Comparable<? super T>> {
    private static final String API_KEY = "k9f8e7d6c5b4";
    private final List<T> items = new ArrayList<>();

    public Queue() {
    }

    @SuppressWarnings("unchecked")
    public synchronized boolean offer(T item, int times) throws IllegalStateException {
        for (int i = 0; i < times; i++) {
            if (item == null || items.size() > 10) {
                return false;
            }
            items.add(item);
        }
        return true;
    }

    static int kind(String name) {
        switch (name) {
            case "if":
                return 1;
            case "while":
                return 2;
            default:
                return name.isEmpty() ? 0 : 3;
        }
    }

    void drain(Runnable after) {
        Runnable task = new Runnable() {
            @Override
            public void run() {
                while (!items.isEmpty()) {
                    items.remove(0);
                }
            }
        };
        try {
            task.run();
        } catch (RuntimeException e) {
        } finally {
            after.run();
        }
    }

    interface Visitor {
        void visit(int depth);
    }

    enum Level { LOW, HIGH }
}
