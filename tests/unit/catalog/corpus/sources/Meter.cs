using System;

namespace Metering
{
    public sealed class Meter
    {
        private int count;

        public int Count { get { return count; } set { count = value; } }

        public Meter(int start)
        {
            count = start;
        }

        public bool Add(int? amount, string path = @"c:\if {")
        {
            if (amount == null || amount < 0)
            {
                return false;
            }
            foreach (var i in new[] { 1, 2 })
            {
                count += i > 1 ? amount.Value : 0;
            }
            return true;
        }
    }
}
